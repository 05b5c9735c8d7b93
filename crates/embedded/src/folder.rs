//! The data folder: made with owner-only rights, and worked on by one process at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::OpenError;

const LOCK_NAME: &str = "flashsale.lock";

/// Another process works on the data folder.
#[derive(Debug, Error)]
#[error("the data folder {path} is in use by another flashsale process{}", .address.as_ref().map(|at| format!(" (it serves {at})")).unwrap_or_default())]
pub struct Occupied {
    /// The folder.
    pub path: String,
    /// The address that the other process serves, where it serves one.
    pub address: Option<String>,
}

/// A data folder that this process alone works on, until it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    // The operating system's lock lives as long as the open file, so that a kill leaves no stale one.
    lock: File,
}

impl Folder {
    /// Makes the folder when there is none, and takes its lock.
    ///
    /// # Errors
    /// [`OpenError::Occupied`] when another process holds it, [`OpenError::Io`] when it cannot be made.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |what, path: &Path| {
            let path = path.display().to_string();
            move |source| OpenError::Io { what, path, source }
        };
        make(path).map_err(io("cannot make the data folder", path))?;
        let file = path.join(LOCK_NAME);
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file)
            .map_err(io("cannot open", &file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Occupied { path: path.display().to_string(), address: served(&lock) }.into());
            }
            Err(TryLockError::Error(source)) => return Err(io("cannot lock", &file)(source)),
        }
        // Whatever address the last process wrote is no longer served.
        lock.set_len(0).map_err(io("cannot write", &file))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// The address that another process serves which works on the folder at `path`, if one does.
    #[must_use]
    pub fn served(path: &Path) -> Option<String> {
        let lock = File::open(path.join(LOCK_NAME)).ok()?;
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)).then(|| served(&lock)).flatten()
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves word for other processes of the address that this one serves.
    ///
    /// # Errors
    /// When the word cannot be written.
    pub fn announce(&self, address: &str) -> std::io::Result<()> {
        self.lock.set_len(0)?;
        (&self.lock).rewind()?;
        (&self.lock).write_all(address.as_bytes())
    }
}

fn served(lock: &File) -> Option<String> {
    let mut address = String::new();
    let mut limited = lock.take(256);
    limited.read_to_string(&mut address).ok()?;
    (!address.is_empty()).then_some(address)
}

fn make(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_and_told_where_the_first_serves() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path()).unwrap();
        first.announce("http://127.0.0.1:3000").unwrap();
        let Err(OpenError::Occupied(occupied)) = Folder::open(dir.path()) else { panic!("it was let in") };
        assert_eq!(occupied.address.as_deref(), Some("http://127.0.0.1:3000"));
        assert_eq!(Folder::served(dir.path()).as_deref(), Some("http://127.0.0.1:3000"));
        drop(first);
        assert_eq!(Folder::served(dir.path()), None, "it is served no more");
        Folder::open(dir.path()).unwrap();
    }
}
