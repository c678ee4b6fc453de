//! What the commands of an operator share: the configuration, and how it fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use callbox_machines::local::{AcceleratorChoice, CageChoice, HostConfig};
use callbox_server::config::{self, Accelerator, Cage, Config, Loaded};

use crate::error::CliError;

/// Options of every command that works on this host and not through the API.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file; embedded defaults where it is silent
    #[arg(long, global = true, env = "CALLBOX_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ConfigArgs {
    /// Reads and checks it.
    pub fn load(&self) -> Result<Loaded, CliError> {
        config::load(self.config.as_deref()).map_err(|error| CliError::Config(error.to_string()))
    }
}

/// Makes the data directory, and ours alone: it holds what tokens are signed with.
pub fn create_data_dir(path: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let failed = |doing| move |source| CliError::File { doing, path: path.to_owned(), source };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(failed("create"))?;
    let permissions = path.metadata().map_err(failed("read"))?.permissions();
    if permissions.mode() & 0o077 == 0 {
        return Ok(());
    }
    // It was there, and open to others.
    let ours = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(path, ours).map_err(failed("close to others"))
}

/// A dispatcher that was killed may leave a child between its fork and its exec, which has all
/// files of its parent open: the lock is free a moment later, and the address that it served on.
pub const STILL_HELD: Duration = Duration::from_secs(2);

/// A data directory that is ours as long as this is there.
#[derive(Debug)]
pub struct Held {
    _dir: File,
    _database: Option<File>,
}

/// One dispatcher a data directory: two would sweep each other's machines. And one a database: where
/// that is a link to the database of another directory, that one is taken as well.
pub fn lock(data_dir: &Path) -> Result<Held, CliError> {
    create_data_dir(data_dir)?;
    let dir = hold(data_dir)?;
    let ours = data_dir.canonicalize().ok();
    let database = data_dir.join("callbox.db").canonicalize().ok();
    let elsewhere =
        database.as_deref().and_then(Path::parent).filter(|at| Some(*at) != ours.as_deref());
    Ok(Held { _dir: dir, _database: elsewhere.map(hold).transpose()? })
}

fn hold(dir: &Path) -> Result<File, CliError> {
    let path = dir.join("callbox.lock");
    let file = File::create(&path).map_err(|source| CliError::File {
        doing: "create",
        path: path.clone(),
        source,
    })?;
    let began = Instant::now();
    while file.try_lock().is_err() {
        if began.elapsed() > STILL_HELD {
            return Err(CliError::Busy(dir.to_owned()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(file)
}

/// What the local provider is told.
pub fn host_config(config: &Config) -> HostConfig {
    let local = &config.local;
    let agent = local.agent.clone().unwrap_or_else(beside_us);
    let mut host = HostConfig::new(&config.data_dir, agent);
    host.qemu.clone_from(&local.qemu);
    host.accelerator = match local.accelerator {
        Accelerator::Auto => AcceleratorChoice::Auto,
        Accelerator::Kvm => AcceleratorChoice::Kvm,
        Accelerator::Tcg => AcceleratorChoice::Tcg,
    };
    host.cage = match local.cage {
        Cage::Auto => CageChoice::Auto,
        Cage::Required => CageChoice::Required,
        Cage::Off => CageChoice::Off,
    };
    host.orphan_after = config.orphan_after;
    host.boot_timeout = local.boot_timeout;
    host.tb_size_mib = local.translation_cache_mib;
    host.network = local.network.clone();
    host
}

/// The agent that was built with this binary lies beside it.
fn beside_us() -> PathBuf {
    let ours = std::env::current_exe().unwrap_or_default();
    ours.with_file_name("callbox-agent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_dying_dispatcher_still_holds_is_waited_for() {
        let home = tempfile::tempdir().expect("tempdir");
        let data = home.path().join("d");
        let dying = lock(&data).expect("free");
        let freed = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(dying);
        });
        let held = lock(&data).expect("free a moment later");
        freed.join().expect("it does not panic");
        assert!(matches!(lock(&data), Err(CliError::Busy(_))), "this one stays");
        drop(held);
    }

    #[test]
    fn a_database_that_is_a_link_is_taken_where_it_is() {
        let home = tempfile::tempdir().expect("tempdir");
        let (one, other) = (home.path().join("one"), home.path().join("other"));
        let first = lock(&one).expect("free");
        std::fs::write(one.join("callbox.db"), "").expect("written");
        create_data_dir(&other).expect("created");
        std::os::unix::fs::symlink(one.join("callbox.db"), other.join("callbox.db"))
            .expect("linked");
        assert!(matches!(lock(&other), Err(CliError::Busy(dir)) if dir.ends_with("one")));
        drop(first);
        let second = lock(&other).expect("free now");
        assert!(matches!(lock(&one), Err(CliError::Busy(_))), "its database is taken");
        drop(second);
    }
}
