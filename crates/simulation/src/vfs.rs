//! SQLite's interface to a disk, in C, over a [`Disk`]: translates, and decides nothing.

#![expect(unsafe_code, reason = "SQLite's interface to a disk is C")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    mem::size_of,
    ptr, slice,
};

use rusqlite::ffi;

use crate::disk::{Disk, Handle, Level, Opening, Refusal, SHM_WORDS};

/// A file as SQLite sees it: SQLite makes room for it, and writes and reads the first field.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    /// From `Box::into_raw` in [`open`], until [`close`].
    handle: *mut Handle,
}

/// A disk that SQLite knows by a name. It must outlive all connections on it.
pub(crate) struct Vfs {
    raw: *mut ffi::sqlite3_vfs,
    name: CString,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

impl Vfs {
    /// Makes `disk` known to SQLite as `name`, which must be free.
    pub(crate) fn new(disk: Disk, name: &str) -> Self {
        let name = CString::new(name).expect("it has no zero in it");
        let raw = Box::into_raw(Box::new(ffi::sqlite3_vfs {
            iVersion: 1,
            szOsFile: c_int::try_from(size_of::<File>()).expect("it is small"),
            mxPathname: 512,
            pNext: ptr::null_mut(),
            zName: name.as_ptr(),
            pAppData: Box::into_raw(Box::new(disk)).cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: None,
            xCurrentTimeInt64: None,
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: `raw` and the name in it live until `drop`, which takes them back from SQLite first.
        let code = unsafe { ffi::sqlite3_vfs_register(raw, 0) };
        assert_eq!(code, ffi::SQLITE_OK, "SQLite takes any VFS");
        Self { raw, name }
    }

    /// What to open for the file `name` on it.
    pub(crate) fn uri(&self, name: &str) -> String {
        format!("file:/{name}?vfs={}", self.name.to_string_lossy())
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        // SAFETY: both came from `Box::into_raw` in `new`, and no connection uses them any more.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.raw);
            drop(Box::from_raw((*self.raw).pAppData.cast::<Disk>()));
            drop(Box::from_raw(self.raw));
        }
    }
}

/// Makes what SQLite throws (the salts of its log) follow from `seed`. It is one generator for all connections, so
/// simulations run one at a time in a process.
pub(crate) fn seed_sqlite(seed: u64) {
    let seed = i32::try_from(seed % 0x7FFF_FFFE).expect("it fits") + 1;
    // SAFETY: this control takes an `int` and a pointer to a connection, which may be null.
    unsafe {
        ffi::sqlite3_initialize();
        ffi::sqlite3_test_control(ffi::SQLITE_TESTCTRL_PRNG_SEED, seed, ptr::null_mut::<ffi::sqlite3>());
    }
}

/// The disk of a VFS.
///
/// # Safety
/// `vfs` is one that [`Vfs::new`] made.
unsafe fn disk<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a Disk {
    // SAFETY: `new` put it there, and it stays until the VFS is dropped.
    unsafe { &*(*vfs).pAppData.cast::<Disk>() }
}

/// The handle of an open file.
///
/// # Safety
/// `file` is one that [`open`] opened, and nobody else uses its handle now: SQLite uses a file by one connection, and a
/// connection by one thread.
unsafe fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Handle {
    // SAFETY: `open` put it there, and it stays until `close`.
    unsafe { &mut *(*file.cast::<File>()).handle }
}

/// # Safety
/// `name` ends in a zero.
unsafe fn text(name: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().trim_start_matches('/').to_owned()
}

fn code(outcome: Result<(), Refusal>) -> c_int {
    match outcome {
        Ok(()) => ffi::SQLITE_OK,
        Err(Refusal::Dead) => ffi::SQLITE_IOERR,
        Err(Refusal::Write) => ffi::SQLITE_IOERR_WRITE,
        Err(Refusal::Sync) => ffi::SQLITE_IOERR_FSYNC,
        Err(Refusal::Read) => ffi::SQLITE_IOERR_READ,
        Err(Refusal::Full) => ffi::SQLITE_FULL,
        Err(Refusal::Busy) => ffi::SQLITE_BUSY,
        Err(Refusal::NotFound) => ffi::SQLITE_IOERR_DELETE_NOENT,
    }
}

fn at(offset: ffi::sqlite3_int64) -> usize {
    usize::try_from(offset).expect("SQLite asks for no byte before the first")
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite made room for a `File`, as `szOsFile` says; without methods it will not close it.
    unsafe { (*file).pMethods = ptr::null() };
    // SAFETY: SQLite calls with the VFS that this was registered with.
    let disk = unsafe { disk(vfs) };
    let name = if name.is_null() {
        disk.temporary_name()
    } else {
        // SAFETY: SQLite's names end in a zero.
        unsafe { text(name) }
    };
    let logs = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
    let opening = Opening {
        create: flags & ffi::SQLITE_OPEN_CREATE != 0,
        sync_folder: flags & logs != 0,
        delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
    };
    let Ok(handle) = disk.open(&name, opening) else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: as above; the handle is taken back in `close`, which SQLite calls once for a file with methods.
    unsafe {
        (*file.cast::<File>()).handle = Box::into_raw(Box::new(handle));
        (*file).pMethods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: `open` put it there, and SQLite closes a file once.
    unsafe {
        drop(Box::from_raw((*file.cast::<File>()).handle));
        (*file).pMethods = ptr::null();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    len: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let len = usize::try_from(len).expect("SQLite reads something");
    // SAFETY: SQLite gives room for `len` bytes.
    let buffer = unsafe { slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
    // SAFETY: SQLite calls with a file that it opened.
    match unsafe { handle(file) }.read(at(offset), buffer) {
        Ok(read) if read == len => ffi::SQLITE_OK,
        Ok(read) => {
            // What lies beyond the end is zeros to SQLite.
            buffer[read..].fill(0);
            ffi::SQLITE_IOERR_SHORT_READ
        }
        Err(refusal) => code(Err(refusal)),
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    len: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let len = usize::try_from(len).expect("SQLite writes something");
    // SAFETY: SQLite gives `len` bytes.
    let bytes = unsafe { slice::from_raw_parts(bytes.cast::<u8>(), len) };
    // SAFETY: SQLite calls with a file that it opened.
    code(unsafe { handle(file) }.write(at(offset), bytes))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls with a file that it opened.
    code(unsafe { handle(file) }.truncate(at(len)))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite calls with a file that it opened.
    code(unsafe { handle(file) }.sync())
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, len: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite calls with a file that it opened, and with room for the answer.
    unsafe { *len = ffi::sqlite3_int64::try_from(handle(file).len()).expect("it is in memory") };
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    let level = match level {
        ffi::SQLITE_LOCK_SHARED => Level::Shared,
        ffi::SQLITE_LOCK_RESERVED => Level::Reserved,
        ffi::SQLITE_LOCK_PENDING => Level::Pending,
        ffi::SQLITE_LOCK_EXCLUSIVE => Level::Exclusive,
        _ => return ffi::SQLITE_OK,
    };
    // SAFETY: SQLite calls with a file that it opened.
    code(unsafe { handle(file) }.lock(level))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite calls with a file that it opened.
    unsafe { handle(file) }.unlock(level == ffi::SQLITE_LOCK_SHARED);
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, reserved: *mut c_int) -> c_int {
    // SAFETY: SQLite calls with a file that it opened, and with room for the answer.
    unsafe { *reserved = c_int::from(handle(file).is_reserved()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    // As SQLite's own on Unix.
    4_096
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    // As SQLite's own on Unix: a torn write harms no byte beside it.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    index: c_int,
    bytes: c_int,
    make: c_int,
    out: *mut *mut c_void,
) -> c_int {
    assert_eq!(usize::try_from(bytes), Ok(SHM_WORDS * size_of::<u32>()), "SQLite shares pieces of one size");
    let index = usize::try_from(index).expect("SQLite counts pieces from 0");
    // SAFETY: SQLite calls with a file that it opened.
    match unsafe { handle(file) }.shm_piece(index, make != 0) {
        Ok(piece) => {
            // SAFETY: SQLite gives room for the answer. The piece stays where it is while the handle has it.
            unsafe { *out = piece.map_or(ptr::null_mut(), <*mut u32>::cast) };
            ffi::SQLITE_OK
        }
        Err(refusal) => code(Err(refusal)),
    }
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let bits = u16::try_from((1 << (first + count)) - (1 << first)).expect("there are 8 locks");
    let (take, exclusive) = (flags & ffi::SQLITE_SHM_LOCK != 0, flags & ffi::SQLITE_SHM_EXCLUSIVE != 0);
    // SAFETY: SQLite calls with a file that it opened.
    code(unsafe { handle(file) }.shm_lock(bits, take, exclusive))
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite calls with a file that it opened.
    unsafe { handle(file) }.shm_close();
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: SQLite calls with this VFS, and its names end in a zero.
    code(unsafe { disk(vfs).remove(&text(name), sync_folder != 0) })
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _: c_int,
    found: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls with this VFS, its names end in a zero, and there is room for the answer.
    unsafe { *found = c_int::from(disk(vfs).exists(&text(name))) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite's names end in a zero.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if usize::try_from(room).is_ok_and(|room| bytes.len() <= room) {
        // SAFETY: there is room, and the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast(), bytes.len()) };
        ffi::SQLITE_OK
    } else {
        ffi::SQLITE_CANTOPEN
    }
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, len: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite gives room for `len` bytes. Its own generator is seeded, and does not ask for these.
    unsafe { ptr::write_bytes(out, 0, usize::try_from(len).unwrap_or(0)) };
    len
}

unsafe extern "C" fn sleep(vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    // SAFETY: SQLite calls with this VFS.
    unsafe { disk(vfs) }.nap();
    microseconds
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, day: *mut f64) -> c_int {
    // SAFETY: there is room for the answer: the ledger gets its times from elsewhere.
    unsafe { *day = 2_461_000.5 };
    ffi::SQLITE_OK
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::{dice::Dice, disk::Life};

    fn count(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn what_was_committed_survives_a_power_cut_and_only_if_it_was_synced() {
        for (synchronous, safe) in [("FULL", true), ("OFF", false)] {
            let mut lost = 0;
            for seed in 0..50 {
                let disk = Disk::new(Dice::new(seed));
                let vfs = Vfs::new(disk.clone(), format!("{synchronous}-{seed}").as_str());
                let open = || Connection::open(vfs.uri("a.db")).unwrap();
                let (writer, reader) = (open(), open());
                writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a)").unwrap();
                writer.pragma_update(None, "synchronous", synchronous).unwrap();
                for number in 0..20 {
                    writer.execute("INSERT INTO t VALUES (?1)", [number]).unwrap();
                }
                assert_eq!(count(&reader), 20);
                disk.die(Life::PowerOff);
                drop((writer, reader));
                disk.restart();
                let found = count(&open());
                assert!(found <= 20);
                lost += 20 - found;
            }
            assert_eq!(lost == 0, safe, "{synchronous}: {lost} lost");
        }
    }

    #[test]
    fn what_a_killed_process_wrote_stays() {
        let disk = Disk::new(Dice::new(1));
        let vfs = Vfs::new(disk.clone(), "killed");
        let open = || Connection::open(vfs.uri("a.db")).unwrap();
        let writer = open();
        writer
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE t (a)")
            .unwrap();
        writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
        disk.die(Life::Killed);
        assert!(writer.execute("INSERT INTO t VALUES (2)", []).is_err());
        drop(writer);
        disk.restart();
        assert_eq!(count(&open()), 1);
    }

    #[test]
    fn connections_exclude_each_other_as_on_a_real_disk() {
        let disk = Disk::new(Dice::new(1));
        let vfs = Vfs::new(disk.clone(), "locks");
        let open = || Connection::open(vfs.uri("a.db")).unwrap();
        let (first, second) = (open(), open());
        first.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a); BEGIN IMMEDIATE").unwrap();
        second.busy_timeout(std::time::Duration::ZERO).unwrap();
        assert!(second.execute_batch("BEGIN IMMEDIATE").is_err());
        first.execute_batch("INSERT INTO t VALUES (1); COMMIT").unwrap();
        second.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2); COMMIT").unwrap();
        assert_eq!(count(&first), 2);
        drop(first);
        drop(second);
        assert!(!disk.exists("a.db-wal"), "the last one copies the log into the file and removes it");
        assert_eq!(count(&open()), 2);
    }
}
