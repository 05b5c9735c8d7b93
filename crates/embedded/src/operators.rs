//! The operator log of the embedded profile: rare rows, written beside the commit queue.
//!
//! They do not go through the queue, so that a sign-in cannot wait behind a crowd's purchases nor take their
//! room. A row is one short transaction of a connection that is opened for it: SQLite lets it in between two
//! groups of the writer, which waits for no longer than that transaction lasts.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use flashsale_core::{
    Error, Result,
    operator::{OperatorEntry, OperatorRecord},
    ports::{OperatorLog, Page},
};
use rusqlite::{Connection, Row};
use tokio::{sync::Mutex, task};

use crate::ledger::{CommitQueue, Readers, leave_log_alone, open_for_writing, parsed, unreadable};

const INSERT: &str = "INSERT INTO operator_log (at, event, address) VALUES (?1, ?2, ?3)";
const NEWEST: &str =
    "SELECT id, at, event, address FROM operator_log WHERE id < ?1 ORDER BY id DESC LIMIT ?2";

/// The operator log in the ledger's file.
pub(crate) struct Operators {
    path: PathBuf,
    readers: Arc<Readers>,
    queue: Arc<CommitQueue>,
    /// One row at a time: more writers would only wait for each other in SQLite.
    turn: Arc<Mutex<()>>,
}

impl Operators {
    pub(crate) fn new(path: PathBuf, readers: Arc<Readers>, queue: Arc<CommitQueue>) -> Self {
        Self { path, readers, queue, turn: Arc::default() }
    }
}

#[async_trait]
impl OperatorLog for Operators {
    async fn record(&self, entry: &OperatorEntry) -> Result<()> {
        let (path, entry) = (self.path.clone(), *entry);
        let turn = self.turn.clone().lock_owned().await;
        // A ledger that failed is left as it is: what a sync of its log says now is worth nothing.
        if self.queue.has_failed() {
            return Err(unwritable(&"the ledger cannot be written"));
        }
        let written = task::spawn_blocking(move || {
            // Held until the row is written, even if nobody waits for it any more.
            let _turn = turn;
            write(&path, &entry)
        });
        let written = written.await.map_err(|error| unwritable(&error))?;
        written.map_err(|error| unwritable(&error))
    }

    async fn newest(&self, before: Option<i64>, limit: u32) -> Result<Page<OperatorRecord>> {
        let read = move |connection: &Connection| page(connection, before.unwrap_or(i64::MAX), limit.max(1));
        self.readers.run(move |connection| read(connection).map_err(|error| unreadable(&error))).await
    }
}

fn write(path: &Path, entry: &OperatorEntry) -> rusqlite::Result<()> {
    let connection = open_for_writing(path)?;
    // The last one to close the file copies the log into it, which is the ledger's to do, or not to do.
    leave_log_alone(&connection);
    let row = (entry.at.to_string(), entry.event.as_str(), entry.address.to_string());
    connection.execute(INSERT, row).map(drop)
}

fn page(connection: &Connection, before: i64, limit: u32) -> rusqlite::Result<Page<OperatorRecord>> {
    let mut statement = connection.prepare_cached(NEWEST)?;
    // One more than asked for tells whether there is more.
    let rows = statement.query_map((before, i64::from(limit) + 1), record)?;
    let mut rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|last| last.id);
    Ok(Page { rows, next })
}

fn record(row: &Row<'_>) -> rusqlite::Result<OperatorRecord> {
    let entry = OperatorEntry { at: parsed(row, 1)?, event: parsed(row, 2)?, address: parsed(row, 3)? };
    Ok(OperatorRecord { id: row.get(0)?, entry })
}

fn unwritable(error: &dyn std::fmt::Display) -> Error {
    Error::unavailable(format!("the operator log cannot be written: {error}"))
}
