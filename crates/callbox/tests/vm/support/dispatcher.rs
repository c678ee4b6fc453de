//! `callbox serve`, from its first line to its end.

use std::{fs::OpenOptions, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
    time::timeout,
};

use super::{Home, PATIENCE, Ran, SOON, left};

/// A dispatcher that serves.
pub struct Dispatcher<'a> {
    child: Child,
    pub(super) address: String,
    pub(super) key: Option<String>,
    pub home: &'a Home,
}

/// What is unusual about a dispatcher.
#[derive(Default)]
pub struct Setting<'a> {
    /// Further lines under `[local]`.
    pub local: &'a str,
    /// Further variables of its environment.
    pub environment: &'a [(&'a str, &'a str)],
}

impl<'a> Dispatcher<'a> {
    /// Starts one with these bots (TOML) and waits until it is ready for all of them.
    pub async fn ready(home: &'a Home, bots: &str) -> Dispatcher<'a> {
        Dispatcher::ready_as(home, bots, &Setting::default()).await
    }

    /// The same in a setting of its own.
    pub async fn ready_as(home: &'a Home, bots: &str, setting: &Setting<'_>) -> Dispatcher<'a> {
        let dispatcher = Dispatcher::serving_as(home, bots, setting).await;
        let ready = async {
            while dispatcher.get("/readyz").await.status != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, ready).await.expect("the dispatcher becomes ready");
        dispatcher
    }

    /// Starts one with these bots and waits until it serves: its bots may not be prepared yet.
    pub async fn serving(home: &'a Home, bots: &str) -> Dispatcher<'a> {
        Dispatcher::serving_as(home, bots, &Setting::default()).await
    }

    async fn serving_as(home: &'a Home, bots: &str, setting: &Setting<'_>) -> Dispatcher<'a> {
        let config = home.configure_with(setting.local, bots);
        let log = OpenOptions::new().create(true).append(true).open(home.log_file()).unwrap();
        let mut command = home.callbox(&["serve", "--config", config.to_str().unwrap()]);
        command.envs(setting.environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        // The first time on a host, a kernel is fetched and KVM is tried out.
        let read = timeout(PATIENCE, stdout.read_line(&mut line)).await;
        read.expect("the dispatcher says that it serves").unwrap();
        let address = line.trim().strip_prefix("callbox serves on http://");
        let address = address.unwrap_or_else(|| panic!("it said {line:?}")).to_owned();
        Dispatcher { child, address, key: None, home }
    }

    /// The same, asked with this key from now on.
    pub fn with_key(self, key: &str) -> Dispatcher<'a> {
        Dispatcher { key: Some(key.to_owned()), ..self }
    }

    /// Where it serves.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Runs a client command against it.
    pub async fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments)).await
    }

    /// A client command against it.
    pub fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = self.home.callbox(arguments);
        command.env("CALLBOX_URL", format!("http://{}", self.address));
        command.envs(self.key.iter().map(|key| ("CALLBOX_KEY", key)));
        command
    }

    /// The lines of a session's log, oldest first, as `source: text`.
    pub async fn log_of(&self, id: &str) -> Vec<String> {
        let ran = self.run(&["logs", id, "--json"]).await.expect(0);
        let line = |entry: Value| {
            format!("{}: {}", entry["source"].as_str().unwrap(), entry["text"].as_str().unwrap())
        };
        ran.json_lines().into_iter().map(line).collect()
    }

    /// Ends it as its users do. It must have had no living session any more, and leaves nothing.
    pub async fn stop(self) {
        let living = self.run(&["ps", "--json"]).await.expect(0).json();
        assert_eq!(living["sessions"], Value::Array(Vec::new()), "sessions still live");
        self.terminate().await;
    }

    /// Sends SIGTERM. It must end well, and leave nothing.
    pub async fn terminate(mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let status = timeout(SOON, self.child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(0), "{status}");
        left::assert_nothing(self.home.path());
        // Cgroups, networks, processes: what the program itself would find and remove.
        let found = self.home.sweep(&["--dry-run", "--all"]).await.expect(0).json();
        assert_eq!(found["found"], Value::Array(Vec::new()), "something is left on the host");
    }

    /// Sends SIGTERM to one whose calls go on without it.
    pub async fn leave(mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let status = timeout(SOON, self.child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(0), "{status}");
    }

    /// Ends it without a warning.
    pub async fn kill(mut self) {
        kill_process(self.pid(), Signal::KILL).unwrap();
        self.child.wait().await.unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id().expect("it runs")).unwrap()).unwrap()
    }
}

impl Home {
    /// Runs `callbox sweep` here.
    pub async fn sweep(&self, arguments: &[&str]) -> Ran {
        let config = self.path().join("callbox.toml");
        let fixed = ["sweep", "--json", "--config", config.to_str().unwrap()];
        Ran::of(self.callbox(&[&fixed, arguments].concat())).await
    }

    /// After the end of the last dispatcher: nothing runs, and no file lies about.
    pub fn assert_nothing_left(&self) {
        left::assert_nothing(self.path());
    }

    /// How many machines run here.
    pub fn machines(&self) -> usize {
        left::machines(self.path()).len()
    }

    /// The processes of the machines that run here.
    pub fn machine_processes(&self) -> Vec<Pid> {
        left::machines(self.path())
    }

    /// The processes that carry calls here.
    pub fn relays(&self) -> Vec<Pid> {
        left::relays(self.path())
    }
}
