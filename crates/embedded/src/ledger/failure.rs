//! What happens once the ledger cannot be trusted to be on the disk: selling stops, and its file is left as it is.

use rusqlite::{Connection, config::DbConfig, ffi};
use tracing::error;

use super::{commit_queue::CommitQueue, outbox::Outbox, record::Entry};

/// Whether what failed is a sync. Of a checkpoint's, too, no second try tells what the disk holds: the system may have dropped
/// pages that an earlier checkpoint copied and did not sync, and a log that starts anew would leave them nowhere.
pub(super) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_FSYNC)
}

/// Keeps SQLite from copying the log into the file when `connection` is closed. The next start reads all of the log.
pub(crate) fn leave_log_alone(connection: &Connection) {
    let set = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    if let Err(error) = set {
        error!(%error, "SQLite may copy the log of the ledger when it is closed");
    }
}

/// Nothing is written any more: who waits for `group`, and for what has not been taken yet, is told why.
pub(super) fn stop(queue: &CommitQueue, outbox: &Outbox, group: Vec<Entry>, why: &str) {
    error!("the ledger cannot be written: {why}; selling stops until the server is started again");
    let (left, failure) = queue.fail(why);
    for reply in group.into_iter().chain(left).filter_map(|entry| entry.reply) {
        let _ = reply.send(Err(failure.clone()));
    }
    outbox.wake();
}
