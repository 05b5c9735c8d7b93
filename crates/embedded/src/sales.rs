//! The sales in memory: for each, its state machine under a short lock, and how much of it is durable.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flashsale_core::{
    Error, Result,
    ids::{Place, SaleId},
    inventory::Inventory,
};
use parking_lot::{Mutex, RwLock};

/// The most sales that there can be at once; far more than a shop opens, and a bound on memory.
pub(crate) const SALES_MAX: usize = 100_000;

/// The highest number of a sale that the ledger takes: deleted sales keep theirs.
pub(crate) const SALE_NO_MAX: u32 = 1_000_000;

/// One sale in memory.
pub(crate) struct SaleCell {
    /// The number of the sale in the ledger.
    pub(crate) no: u32,
    pub(crate) id: SaleId,
    pub(crate) state: Mutex<State>,
    durable: AtomicU64,
}

/// What the lock of a sale guards.
pub(crate) struct State {
    pub(crate) inventory: Inventory,
    /// Set when the sale is deleted: whoever still holds the cell must not decide on it.
    pub(crate) deleted: bool,
}

impl SaleCell {
    pub(crate) fn new(no: u32, inventory: Inventory) -> Self {
        let durable = AtomicU64::new(inventory.place().0);
        let id = inventory.sale().id.clone();
        Self { no, id, state: Mutex::new(State { inventory, deleted: false }), durable }
    }

    /// The last place of the sale's sequence that is durable.
    pub(crate) fn durable(&self) -> Place {
        Place(self.durable.load(Ordering::Acquire))
    }

    /// Called by the ledger, in the order of the sequence, once a commit has succeeded.
    pub(crate) fn set_durable(&self, place: Place) {
        self.durable.store(place.0, Ordering::Release);
    }
}

/// All sales in memory.
pub(crate) struct Sales {
    cells: RwLock<HashMap<SaleId, Arc<SaleCell>>>,
    /// Making and deleting sales, one at a time; holds the number for the next sale.
    pub(crate) next_no: tokio::sync::Mutex<u32>,
}

impl Sales {
    pub(crate) fn new(cells: Vec<Arc<SaleCell>>, next_no: u32) -> Self {
        let cells = cells.into_iter().map(|cell| (cell.id.clone(), cell)).collect();
        Self { cells: RwLock::new(cells), next_no: tokio::sync::Mutex::new(next_no) }
    }

    pub(crate) fn get(&self, id: &SaleId) -> Result<Arc<SaleCell>> {
        self.find(id).ok_or_else(|| Error::UnknownSale(id.clone()))
    }

    pub(crate) fn find(&self, id: &SaleId) -> Option<Arc<SaleCell>> {
        self.cells.read().get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<SaleCell>> {
        self.cells.read().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.cells.read().len()
    }

    pub(crate) fn insert(&self, cell: Arc<SaleCell>) {
        self.cells.write().insert(cell.id.clone(), cell);
    }

    pub(crate) fn remove(&self, id: &SaleId) {
        self.cells.write().remove(id);
    }
}
