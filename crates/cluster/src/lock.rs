//! The locks that several processes share, as advisory locks of PostgreSQL sessions: a dead holder loses them, a sleeping
//! one keeps them.

use std::time::Duration;

use flashsale_core::{Error, Result};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::timeout;

use crate::store::{database, mute, within};

/// The space of our locks: "Flsh".
const SPACE: i32 = 0x466C_7368;

/// How long an answer may take that needs no work.
const ANSWER: Duration = Duration::from_secs(5);

/// What is locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// Sales are made, changed, reset; Redis is rebuilt.
    Changes = 1,
    /// Redis is rebuilt; workers stay off the queue meanwhile.
    Recovery = 2,
}

/// A session of its own that holds a lock. Dropping it ends the session, and with it the lock.
pub(crate) struct Lock {
    pub(crate) session: PgConnection,
    patience: Duration,
}

impl Lock {
    /// Waits for the lock, for at most `patience`.
    pub(crate) async fn acquire(pool: &PgPool, what: What, patience: Duration) -> Result<Self> {
        let mut session = pool.acquire().await.map_err(database)?.detach();
        let bound = format!("SET lock_timeout = {}", patience.as_millis());
        within(ANSWER, sqlx::query(sqlx::AssertSqlSafe(bound)).execute(&mut session)).await?;
        let mut lock = Self { session, patience };
        lock.also(what).await?;
        Ok(lock)
    }

    /// Takes a further lock in the same session.
    pub(crate) async fn also(&mut self, what: What) -> Result<()> {
        let lock = sqlx::query("SELECT pg_advisory_lock($1, $2)").bind(SPACE).bind(what as i32);
        match timeout(self.patience + ANSWER, lock.execute(&mut self.session)).await {
            Ok(Ok(_)) => Ok(()),
            // lock_not_available
            Ok(Err(sqlx::Error::Database(error))) if error.code().as_deref() == Some("55P03") => {
                Err(Error::Busy { retry_after: Duration::from_secs(1) })
            }
            Ok(Err(error)) => Err(database(error)),
            Err(_) => Err(mute()),
        }
    }

    /// Makes sure that the session is there, and with it the lock.
    pub(crate) async fn still_held(&mut self) -> Result<()> {
        within(ANSWER, sqlx::query("SELECT 1").execute(&mut self.session)).await.map(drop)
    }

    /// Lets go, and says goodbye.
    pub(crate) async fn release(self) {
        let _ = timeout(ANSWER, self.session.close()).await;
    }

    /// Whether somebody holds the lock right now.
    pub(crate) async fn is_held(pool: &PgPool, what: What) -> Result<bool> {
        let free = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock_shared($1, $2)")
            .bind(SPACE)
            .bind(what as i32);
        let free: bool = within(ANSWER, free.fetch_one(pool)).await?;
        Ok(!free)
    }
}
