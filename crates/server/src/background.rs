//! Work that can wait: exports, searches and checks read the records on threads that leave the processors to
//! those who buy.
//!
//! It is a runtime of its own. What a read blocks, it blocks there, and its threads have the lowest priority: an
//! export takes what is left of the machine, and a purchase that arrives meanwhile does not queue behind it.

use std::{io, panic::resume_unwind, sync::Arc};

use async_trait::async_trait;
use flashsale_core::{
    Error, Result,
    audit::AuditEvent,
    ids::{Epoch, SaleId},
    order::{Confirmation, Order, Reservation},
    ports::{Figures, FindEvents, FindOrders, Found, OrderStore, Page},
};
use tokio::{
    runtime::{self, Runtime},
    task::JoinSet,
};

/// Reads that block at once; more wait for a thread.
const THREADS_MAX: usize = 8;

/// The runtime of what can wait. Dropping it ends what is under way.
pub(crate) struct Background {
    /// There until the drop.
    runtime: Option<Runtime>,
}

impl Background {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(THREADS_MAX)
            .thread_name("background")
            .on_thread_start(step_back)
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Does `work` there; it ends with whoever waits for it.
    ///
    /// # Errors
    /// When the server is shutting down.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let stopped = || Error::unavailable("the server is shutting down");
        let runtime = self.runtime.as_ref().ok_or_else(stopped)?;
        // A set, because dropping it ends what was spawned.
        let mut one = JoinSet::new();
        one.spawn_on(work, runtime.handle());
        match one.join_next().await {
            Some(Ok(done)) => Ok(done),
            Some(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
            _ => Err(stopped()),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Gives this thread the lowest priority. Elsewhere than on Linux that would be the whole process's.
fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(19) {
        tracing::debug!(%error, "exports and searches run at the same priority as purchases");
    }
}

/// A store that is read in the background.
pub(crate) struct Unhurried {
    store: Arc<dyn OrderStore>,
    background: Arc<Background>,
}

impl Unhurried {
    pub(crate) fn new(store: Arc<dyn OrderStore>, background: Arc<Background>) -> Self {
        Self { store, background }
    }

    async fn read<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        read: impl FnOnce(Arc<dyn OrderStore>) -> F,
    ) -> Result<T> {
        self.background.run(read(self.store.clone())).await?
    }
}

#[async_trait]
impl OrderStore for Unhurried {
    async fn confirm(&self, reservations: &[Reservation]) -> Result<Vec<Confirmation>> {
        self.store.confirm(reservations).await
    }

    async fn epoch(&self, sale: &SaleId) -> Result<Epoch> {
        let sale = sale.clone();
        self.read(|store| async move { store.epoch(&sale).await }).await
    }

    async fn orders(&self, sale: &SaleId, after: i64, limit: u32) -> Result<Page<Order>> {
        let sale = sale.clone();
        self.read(|store| async move { store.orders(&sale, after, limit).await }).await
    }

    async fn audit(&self, sale: &SaleId, after: i64, limit: u32) -> Result<Page<AuditEvent>> {
        let sale = sale.clone();
        self.read(|store| async move { store.audit(&sale, after, limit).await }).await
    }

    async fn find_orders(&self, sale: &SaleId, find: &FindOrders) -> Result<Found<Order>> {
        let (sale, find) = (sale.clone(), find.clone());
        self.read(|store| async move { store.find_orders(&sale, &find).await }).await
    }

    async fn find_events(&self, sale: &SaleId, find: &FindEvents) -> Result<Found<AuditEvent>> {
        let (sale, find) = (sale.clone(), find.clone());
        self.read(|store| async move { store.find_events(&sale, &find).await }).await
    }

    async fn sale_ids(&self) -> Result<Vec<SaleId>> {
        self.read(|store| async move { store.sale_ids().await }).await
    }

    async fn figures(&self, sale: &SaleId) -> Result<Figures> {
        let sale = sale.clone();
        self.read(|store| async move { store.figures(&sale).await }).await
    }
}
