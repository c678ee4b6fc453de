//! Which deployment a data directory belongs to.
//!
//! The machines and relays in it carry no label: whoever has its lock goes on with those that its
//! store claims, and removes the others. With another store than before, by a variable that was
//! forgotten, say, no session would claim any, and all calls would end. So the first dispatcher
//! writes down, before it makes anything, which deployment it is of, and one of another deployment
//! is refused as long as something of the first one is left.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use callbox_machines::local::leftovers::{self, LeftoverKind};

use crate::{driver::Chain, media::relay::Relays};

/// The file that says it.
const FILE: &str = "deployment";

/// Why a store does not go with a data directory.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// What is left in the directory is another deployment's. The store is not named: its address
    /// may hold a password.
    #[error(
        "the data directory holds {machines} machines and {calls} calls of deployment {theirs}, \
         and the store {}", of(.ours)
    )]
    Others {
        /// Id of the deployment that the directory belongs to.
        theirs: String,
        /// Id of the store's; none where there is no store yet.
        ours: Option<String>,
        /// Machines that are left, running or not.
        machines: usize,
        /// Relays that are left, running or not.
        calls: usize,
    },
    /// What is left in the directory cannot be found out.
    #[error("cannot see what is left in the data directory: {0}")]
    Unseen(String),
    /// Whose it is cannot be read or written.
    #[error("cannot read or write which deployment the data directory belongs to")]
    File(#[from] io::Error),
}

fn of(ours: &Option<String>) -> String {
    match ours {
        Some(id) => format!("is of deployment {id}"),
        None => "is not there yet".to_owned(),
    }
}

/// Whether the deployment `ours` may go on with what is in `data_dir`; none: its store is not
/// there yet. What belongs to nobody yet, or has nothing of another one left, may be anybody's.
/// The caller holds the directory's lock.
///
/// # Errors
/// [`OwnerError::Others`] when it may not.
pub async fn check(data_dir: &Path, ours: Option<&str>) -> Result<(), OwnerError> {
    let Some(theirs) = read(data_dir)?.filter(|theirs| Some(theirs.as_str()) != ours) else {
        return Ok(());
    };
    let calls = Relays::of(data_dir).sessions().len();
    let left = leftovers::find(data_dir, &|_| false).await;
    let left = left.map_err(|error| OwnerError::Unseen(Chain(&error).to_string()))?;
    // Reserves and templates in the making are nobody's, whoever comes next.
    let machines = left.iter().filter(|one| one.kind == LeftoverKind::Machine).count();
    if machines == 0 && calls == 0 {
        return Ok(());
    }
    let ours = ours.map(str::to_owned);
    Err(OwnerError::Others { theirs, ours, machines, calls })
}

/// Makes `data_dir` that of the deployment `ours`, if it may be: see [`check`].
///
/// # Errors
/// [`OwnerError::Others`] when it may not.
pub async fn take(data_dir: &Path, ours: &str) -> Result<(), OwnerError> {
    check(data_dir, Some(ours)).await?;
    if read(data_dir)?.as_deref() == Some(ours) {
        return Ok(());
    }
    let file = data_dir.join(FILE);
    let new = file.with_extension("new");
    let mut writing = fs::File::create(&new)?;
    writing.write_all(format!("{ours}\n").as_bytes())?;
    // On the disk before anything is made: after a crash of the host it must say who made it.
    writing.sync_all()?;
    fs::rename(new, file)?;
    Ok(())
}

fn read(data_dir: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(data_dir.join(FILE)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_directory_changes_hands_only_when_nothing_is_left_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        check(at, None).await.unwrap();
        take(at, "one").await.unwrap();
        // A machine and a call of it; a reserve would be nobody's.
        let (machine, relay) = (
            at.join("run/cb-6f9619ff8b864d01b42d00cf4fc964ff-1"),
            at.join("relays/6f9619ff-8b86-4d01-b42d-00cf4fc964ff.sock"),
        );
        fs::create_dir_all(&machine).unwrap();
        fs::create_dir_all(relay.parent().unwrap()).unwrap();
        fs::write(&relay, "").unwrap();
        take(at, "one").await.unwrap();
        let refused = take(at, "two").await.unwrap_err().to_string();
        assert!(refused.contains("1 machines and 1 calls of deployment one"), "{refused}");
        assert!(refused.contains("deployment two"), "{refused}");
        assert!(check(at, None).await.unwrap_err().to_string().contains("is not there yet"));
        fs::remove_dir(&machine).unwrap();
        assert!(take(at, "two").await.is_err(), "the call is left");
        fs::remove_file(&relay).unwrap();
        check(at, Some("two")).await.unwrap();
        take(at, "two").await.unwrap();
        fs::create_dir(&machine).unwrap();
        assert!(check(at, Some("one")).await.is_err(), "it is the other one's now");
    }
}
