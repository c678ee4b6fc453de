//! A data directory, and the dispatchers that follow each other in it.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::api::{Api, PATIENCE};
use crate::steps::text;

/// What machines are made from, and slow to make: shared with other tests.
const SHARED: [&str; 4] = ["images", "kernel", "templates", "probe"];

/// The bot of the image `tiny`, without the pause that TCP makes for small writes: it would be in
/// all that is measured here. With a network, so that there is one to be left behind.
const CONFIG: &str = r#"
[limits]
on_shutdown = "leave"

[bot_defaults.timeouts]
queued_s = 200
start_s = 280
ready_s = 240

[bots.tiny]
image = "tiny"
argv = ["python3", "-c", """
import sys
sys.path.insert(0, '/app')
import http_bot as bot
bot.Handler.disable_nagle_algorithm = True
print('tiny: listening on 127.0.0.1:8080', flush=True)
bot.Server(('127.0.0.1', 8080), bot.Handler).serve_forever()
"""]
memory_mib = 256
disk_mib = 64
network = "internet"
reserve = { min = 1, max = 2 }
"#;

/// All that the test makes is below one directory.
pub struct Home {
    pub path: PathBuf,
    built: PathBuf,
    /// Address of the database; none for the file in the data directory.
    store: Option<String>,
}

impl Home {
    pub fn new(callbox: &Path, data_dir: &Path, store: Option<String>) -> anyhow::Result<Home> {
        // Sockets of machines are below, so the path has to be short.
        // What failed on one store is kept, while the next one is tried.
        static HOMES: AtomicU32 = AtomicU32::new(0);
        let number = HOMES.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("cbkill-{}-{number}", std::process::id()));
        let home = Home { path, built: callbox.to_owned(), store };
        fs::create_dir(&home.path)
            .with_context(|| format!("cannot create {}", home.path.display()))?;
        fs::create_dir(home.data())?;
        fs::create_dir(home.temporary())?;
        for name in SHARED {
            let shared = data_dir.join(name);
            fs::create_dir_all(&shared)?;
            symlink(shared.canonicalize()?, home.data().join(name))?;
        }
        home.install()?;
        Ok(home)
    }

    pub fn data(&self) -> PathBuf {
        self.path.join("d")
    }

    /// For temporary files of the program.
    pub fn temporary(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// What dispatchers wrote to standard error, of all of them.
    pub fn log(&self) -> PathBuf {
        self.path.join("serve.log")
    }

    /// Puts the program in place of the one that is there, as an upgrade does.
    pub fn install(&self) -> anyhow::Result<()> {
        let new = self.path.join("callbox.new");
        fs::copy(&self.built, &new).context("cannot copy callbox")?;
        fs::rename(new, self.path.join("callbox")).context("cannot put callbox in place")
    }

    fn command(&self, command: &str, listen: &str) -> anyhow::Result<Command> {
        let config = self.path.join("callbox.toml");
        let (data, agent) = (self.data(), self.built.with_file_name("callbox-agent"));
        let head = format!(
            "listen = {listen:?}\ndata_dir = {data:?}\n\
             [local]\nagent = {agent:?}\nboot_timeout_s = 120\n"
        );
        fs::write(&config, head + CONFIG)?;
        let mut callbox = Command::new(self.path.join("callbox"));
        callbox
            .args([command, "--config", text(&config)])
            // Nothing from our environment shall change what it does.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8")
            .env("TMPDIR", self.temporary())
            .envs(self.store.iter().map(|store| ("CALLBOX_STORE", store)))
            .stdin(Stdio::null());
        Ok(callbox)
    }

    /// What `callbox sweep` finds on the host that is ours, without a dispatcher.
    pub fn sweep(&self, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
        let mut sweep = self.command("sweep", "127.0.0.1:0")?;
        let output = sweep.args(["--all", "--json"]).args(arguments).output()?;
        let answer: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            format!("callbox sweep says {:?}", String::from_utf8_lossy(&output.stderr))
        })?;
        Ok(answer["found"].as_array().cloned().unwrap_or_default())
    }

    pub fn remove(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.path)
            .with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

/// One `callbox serve`.
pub struct Dispatcher {
    child: Child,
    pub api: Api,
    /// Milliseconds since the epoch.
    pub since_ms: u64,
    /// From its start until it answered.
    pub serving_after: Duration,
}

impl Dispatcher {
    /// Starts one and kills it so long afterwards, wherever it is then.
    pub fn die_young(home: &Home, listen: &str, after: Duration) -> anyhow::Result<()> {
        let mut child = Dispatcher::spawn(home, listen, &[])?;
        std::thread::sleep(after);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn spawn(home: &Home, listen: &str, env: &[(&str, String)]) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(home.log())?;
        let mut serve = home.command("serve", listen)?;
        serve.envs(env.iter().map(|(name, value)| (name, value)));
        serve.stdout(Stdio::piped()).stderr(log).spawn().context("cannot run callbox serve")
    }

    /// Starts one and waits until it answers.
    pub fn start(home: &Home, listen: &str) -> anyhow::Result<Dispatcher> {
        Dispatcher::start_with(home, listen, &[])
    }

    /// The same, with this in its environment.
    pub fn start_with(
        home: &Home,
        listen: &str,
        env: &[(&str, String)],
    ) -> anyhow::Result<Dispatcher> {
        let epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let began = Instant::now();
        let mut child = Dispatcher::spawn(home, listen, env)?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let Some(address) = line.trim().strip_prefix("callbox serves on http://") else {
            let _ = child.wait();
            bail!("the dispatcher does not serve; see {}", home.log().display());
        };
        let api = Api { address: address.to_owned() };
        while !api.serves() {
            if let Some(status) = child.try_wait()? {
                bail!("the dispatcher ended with {status}; see {}", home.log().display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let since_ms = u64::try_from(epoch.as_millis()).unwrap_or(0);
        Ok(Dispatcher { child, api, since_ms, serving_after: began.elapsed() })
    }

    /// Whether it has ended by itself.
    pub fn is_gone(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    pub fn pid(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_nonzero().get()
    }

    pub fn wait_until_ready(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while !self.api.is_ready() {
            if began.elapsed() > PATIENCE {
                bail!("the bot was not prepared within {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Ends it with this signal, and waits.
    pub fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("it is gone already")?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > Duration::from_secs(60) {
                self.child.kill()?;
                self.child.wait()?;
                bail!("the dispatcher did not end within 60 s of {signal:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // After an error of ours; else it has ended.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
