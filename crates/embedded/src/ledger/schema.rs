//! The form of the ledger's file, and how connections to it are set up.

use std::{
    cmp::Ordering,
    fs::OpenOptions,
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::OpenError;

/// The name of the ledger's file in the data folder.
pub const FILE_NAME: &str = "flashsale.db";

/// Marks the file as ours: "Flsh".
const APPLICATION_ID: i64 = 0x466C_7368;

/// The steps from an empty file to the present form; the file's `user_version` says how many it has had.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/0001_ledger.sql"),
    include_str!("../../migrations/0002_places_of_orders.sql"),
    include_str!("../../migrations/0003_products_and_searches.sql"),
    include_str!("../../migrations/0004_operator_log.sql"),
    include_str!("../../migrations/0005_live_and_ended_orders.sql"),
    include_str!("../../migrations/0006_live_orders_without_an_index_of_ids.sql"),
];

/// Opens the ledger for its one writer, making it when there is none, in its present form.
pub(crate) fn open(path: &Path) -> Result<Connection, OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.display().to_string(), source };
    make_for_owner(path);
    renew_log(path)?;
    // Looked at before anything of it is changed.
    if !Connection::open(path).and_then(|connection| is_ours(&connection)).map_err(sqlite)? {
        return Err(OpenError::Foreign { path: path.display().to_string() });
    }
    let mut connection = open_for_writing(path).map_err(sqlite)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Writes the log anew, byte for byte, and syncs it, so that memory is rebuilt from what is on the disk. What a start reads
/// may be in the operating system's memory only: a process that was killed had not synced it, or a sync that failed has
/// dropped it, and then no sync brings it to the disk unless it is written again. Everything that is appended to the log
/// behind it would be lost with it, and a checkpoint would mix old pages with new ones.
fn renew_log(path: &Path) -> Result<(), OpenError> {
    let log = path.with_file_name(format!("{FILE_NAME}-wal"));
    match rewrite(&log) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(OpenError::Io { what: "cannot write", path: log.display().to_string(), source })
        }
        _ => Ok(()),
    }
}

fn rewrite(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut piece = vec![0; 1 << 20];
    loop {
        let at = file.stream_position()?;
        let len = file.read(&mut piece)?;
        if len == 0 {
            return file.sync_all();
        }
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&piece[..len])?;
    }
}

/// Opens the file for writing.
pub(crate) fn open_for_writing(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    // A checkpoint may be at work on the same file for a moment.
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Each commit is on the disk before anybody is told of it (P3).
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Checkpoints are the checkpointer's business, off the commit path.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // 16 MiB: enough for the pages that are written again and again. More would be slower, since SQLite goes
    // through the cache at each commit that split a page.
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Makes the file so that only its owner reads it; SQLite gives its log the same rights. Where that fails,
/// SQLite says better what is wrong.
fn make_for_owner(path: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _ = options.open(path);
}

/// Opens the file for reading.
pub(crate) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    Ok(connection)
}

/// Brings the file to the present form, in one transaction.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let file = || path.display().to_string();
    let sqlite = |source| OpenError::Sqlite { path: file(), source };
    let known = i64::try_from(MIGRATIONS.len()).expect("there are few migrations");
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    let found: i64 =
        transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
    let done = match usize::try_from(found) {
        Ok(done) if done <= MIGRATIONS.len() => done,
        _ => return Err(OpenError::TooNew { path: file(), found, known }),
    };
    for migration in &MIGRATIONS[done..] {
        transaction.execute_batch(migration).map_err(sqlite)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
    transaction.pragma_update(None, "user_version", known).map_err(sqlite)?;
    transaction.commit().map_err(sqlite)
}

/// Looks whether the file is a ledger of the present form, which alone is what reads it without writing.
///
/// # Errors
/// When it is none, or of another version, or cannot be read.
pub(crate) fn check_version(path: &Path) -> Result<(), OpenError> {
    let file = || path.display().to_string();
    let sqlite = |source| OpenError::Sqlite { path: file(), source };
    let connection = open_for_reading(path).map_err(sqlite)?;
    if !is_ours(&connection).map_err(sqlite)? {
        return Err(OpenError::Foreign { path: file() });
    }
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
    let known = i64::try_from(MIGRATIONS.len()).expect("there are few migrations");
    match found.cmp(&known) {
        Ordering::Equal => Ok(()),
        Ordering::Less => Err(OpenError::TooOld { path: file(), found, known }),
        Ordering::Greater => Err(OpenError::TooNew { path: file(), found, known }),
    }
}

/// Whether the file is a ledger, or nothing yet.
fn is_ours(connection: &Connection) -> rusqlite::Result<bool> {
    let id: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(id == APPLICATION_ID || tables == 0)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::*;

    #[test]
    fn a_log_is_written_anew_to_its_end_and_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        // More than two pieces, and no whole number of them.
        let bytes: Vec<u8> = (0..(5_u32 << 19) + 77).map(|index| (index % 251) as u8).collect();
        fs::write(&log, &bytes).unwrap();
        fs::File::options().write(true).open(&log).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        rewrite(&log).unwrap();
        assert_eq!(fs::read(&log).unwrap(), bytes);
        assert!(fs::metadata(&log).unwrap().modified().unwrap() > SystemTime::UNIX_EPOCH, "it was written");
    }

    /// What cannot be written anew may not be on the disk, so SQLite must not come to read it.
    #[test]
    fn a_log_that_cannot_be_written_anew_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(format!("{FILE_NAME}-wal"))).unwrap();
        let refused = open(&dir.path().join(FILE_NAME)).expect_err("no log");
        assert!(matches!(refused, OpenError::Io { what: "cannot write", .. }), "{refused:?}");
        assert!(refused.to_string().contains("flashsale.db-wal"), "{refused}");
    }
}
