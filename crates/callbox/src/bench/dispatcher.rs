//! A dispatcher of the benchmark's own: this binary, in a directory that goes with it.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::load::footprint::{self, Footprint};
use crate::error::CliError;

/// How long it may take to say where it serves.
const SERVES: Duration = Duration::from_secs(60);
/// How long a killed process may take to end, which has to give much memory back.
const GONE: Duration = Duration::from_secs(20);
/// Its configuration, in its directory.
pub const CONFIG: &str = "callbox.toml";
/// How much of its own log is shown when it fails.
const LAST_WORDS: usize = 2000;
/// Killed when it is dropped; its machines are in it and go with it.
pub struct Dispatcher {
    process: Child,
    /// Where the API is.
    pub url: String,
    pid: u32,
    home: TempDir,
    _stdout: BufReader<ChildStdout>,
}

impl Dispatcher {
    /// Starts one in this directory, with this configuration, and this beside it in its
    /// environment.
    pub async fn start(
        home: TempDir,
        configuration: &str,
        environment: &[(&str, &str)],
    ) -> Result<Dispatcher, CliError> {
        std::fs::write(home.path().join(CONFIG), configuration)?;
        let mut process = command(&home, &["serve"])?
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(home.path().join("serve.log"))?)
            .kill_on_drop(true)
            .spawn()?;
        let pid = process.id().unwrap_or_default();
        let stdout = process.stdout.take().ok_or_else(|| failed(&home))?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let said = timeout(SERVES, stdout.read_line(&mut line)).await;
        let url = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        if !matches!(said, Ok(Ok(_))) || !url.starts_with("http://") {
            return Err(failed(&home));
        }
        Ok(Dispatcher { process, url, pid, home, _stdout: stdout })
    }

    /// What it takes of its host now.
    pub fn footprint(&self) -> Result<Footprint, CliError> {
        footprint::of(self.pid).map_err(|_| failed(&self.home))
    }

    /// Bytes on disk: of its store, and of its sessions' logs. The first is 0 where the store is
    /// elsewhere.
    pub fn on_disk(&self) -> (u64, u64) {
        let size = |path: PathBuf| -> u64 {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let sizes =
                entries.filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?)));
            let files = sizes.filter(|(_, meta)| meta.is_file());
            files
                .filter(|(name, _)| {
                    let name = name.to_string_lossy();
                    name.starts_with("callbox.db") || name.ends_with(".ndjson")
                })
                .map(|(_, meta)| meta.len())
                .sum()
        };
        let data = self.home.path().join("data");
        (size(data.clone()), size(data.join("logs")))
    }
}

impl Drop for Dispatcher {
    /// Waits until it is gone: while it lives, it may write into what goes next.
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        let begun = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) && begun.elapsed() < GONE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// This binary, on the configuration in that directory.
pub fn command(home: &TempDir, args: &[&str]) -> Result<Command, CliError> {
    let mut command = Command::new(std::env::current_exe()?);
    for (name, _) in std::env::vars_os() {
        // What the user set for another dispatcher is not for this one.
        if name.to_string_lossy().starts_with("CALLBOX_") {
            command.env_remove(name);
        }
    }
    command.args(args).arg("--config").arg(home.path().join(CONFIG));
    Ok(command)
}

/// What it wrote last says why.
fn failed(home: &TempDir) -> CliError {
    let log = std::fs::read(home.path().join("serve.log")).unwrap_or_default();
    let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LAST_WORDS)..]).into_owned();
    CliError::Serve(format!("the benchmark's dispatcher is gone; it wrote last:\n{tail}"))
}
