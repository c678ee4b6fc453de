//! Locks between processes: two dispatchers, or a dispatcher and the command line, on one data
//! directory. The kernel releases them when their holder dies, however it dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::Error;

/// Held until dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits until nobody else holds the lock. Blocks.
    ///
    /// # Errors
    /// When the file cannot be opened or the file system has no locks.
    pub fn exclusive(path: &Path) -> Result<FileLock, Error> {
        let file = open(path)?;
        file.lock().map_err(Error::io("lock", path))?;
        Ok(FileLock { _file: file })
    }

    /// The lock if nobody holds it, `None` if somebody does.
    ///
    /// # Errors
    /// As [`FileLock::exclusive`].
    pub fn try_exclusive(path: &Path) -> Result<Option<FileLock>, Error> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(FileLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
        }
    }
}

/// The file is never removed: removing a lock file lets two holders in.
fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(Error::io("open the lock", path))
}
