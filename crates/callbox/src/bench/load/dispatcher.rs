//! A dispatcher of the benchmark's own: this binary, in a directory that goes with it.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::footprint::{self, Footprint};
use crate::error::CliError;

/// How long it may take to say where it serves.
const SERVES: Duration = Duration::from_secs(60);
/// How long a killed process may take to end, which has to give much memory back.
const GONE: Duration = Duration::from_secs(20);
/// How much of its own log is shown when it fails.
const LAST_WORDS: usize = 2000;
/// The bot's name in its configuration.
pub const BOT: &str = "load";

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
    /// Starts one that has room for `sessions` at once, on a store of its own in a file, or on
    /// this one.
    pub async fn start(sessions: u32, store: Option<&str>) -> Result<Dispatcher, CliError> {
        let home = tempfile::tempdir()?;
        let config = home.path().join("callbox.toml");
        std::fs::write(&config, configuration(&home, sessions, store))?;
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os() {
            // What the user set for another dispatcher is not for this one.
            if name.to_string_lossy().starts_with("CALLBOX_") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .arg("serve")
            .arg("--config")
            .arg(&config)
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

/// Deadlines are out of the way, and so are caps: nothing ends but what is ended.
fn configuration(home: &TempDir, sessions: u32, store: Option<&str>) -> String {
    let data = home.path().join("data");
    let most = u64::from(sessions) + 100_000;
    let store = store.map(|url| format!("store = {url:?}\n")).unwrap_or_default();
    format!(
        "listen = \"127.0.0.1:0\"\ndata_dir = {data:?}\n{store}\
         [limits]\nmax_sessions = {most}\nmax_queued = {most}\n\
         [bots.{BOT}]\nprovider = \"fake\"\nmax_sessions = {most}\n\
         [bots.{BOT}.timeouts]\nstart_s = 3600\nready_s = 3600\njoin_s = 86400\nlive_s = 86400\n"
    )
}

/// What it wrote last says why.
fn failed(home: &TempDir) -> CliError {
    let log = std::fs::read(home.path().join("serve.log")).unwrap_or_default();
    let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LAST_WORDS)..]).into_owned();
    CliError::Serve(format!("the benchmark's dispatcher is gone; it wrote last:\n{tail}"))
}
