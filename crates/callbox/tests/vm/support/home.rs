//! A data directory of a test's own, and how the program is run in it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tokio::process::Command;

use super::left;

/// What machines are made from, and slow to make: shared by all tests. Nothing of it is tied to
/// the data directory that it was made in, and writers of it lock each other out.
const SHARED: [&str; 4] = ["images", "kernel", "templates", "probe"];

/// A directory with a data directory and a configuration in it. When it goes away, so does every
/// machine that a failed test left in it.
pub struct Home {
    dir: TempDir,
}

impl Home {
    /// One in which real machines run.
    pub fn new() -> Home {
        let home = Home::bare();
        fs::create_dir(home.data()).unwrap();
        let base = base();
        for name in SHARED {
            fs::create_dir_all(base.join(name)).unwrap();
            symlink(base.join(name), home.data().join(name)).unwrap();
        }
        home
    }

    /// The same, but its templates are its own: none is made yet.
    pub fn without_templates() -> Home {
        let home = Home::new();
        fs::remove_file(home.templates()).unwrap();
        home
    }

    /// Where its templates are.
    pub fn templates(&self) -> PathBuf {
        self.data().join("templates")
    }

    /// One without a data directory.
    pub fn bare() -> Home {
        // Sockets of machines are below, so the path has to be short.
        let dir = tempfile::Builder::new().prefix("cbvm-").tempdir().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        Home { dir }
    }

    /// All of it.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path().join("d")
    }

    /// Kills every machine here, whoever's it is.
    pub fn end_machines(&self) {
        left::end_machines(self.path());
    }

    /// A copy of the program of this home's own, once [`Home::install`] has made one.
    fn program(&self) -> PathBuf {
        self.path().join("callbox")
    }

    /// Puts a copy of the program in place of the one that is there, as an upgrade does.
    pub fn install(&self) {
        let new = self.path().join("callbox.new");
        fs::copy(built(), &new).unwrap();
        fs::rename(new, self.program()).unwrap();
    }

    /// What the dispatchers of this home wrote to standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.path().join("serve.log")
    }

    /// Writes the configuration: a free port, our agent, and `more` TOML (without `[local]`).
    pub fn configure(&self, more: &str) -> PathBuf {
        self.configure_at("127.0.0.1:0", &agent(), more)
    }

    /// The same with further lines under `[local]`.
    pub fn configure_with(&self, local: &str, more: &str) -> PathBuf {
        let path = self.configure(more);
        let text = fs::read_to_string(&path).unwrap().replacen(
            "[local]\n",
            &format!("[local]\n{local}"),
            1,
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// The same for another address or agent.
    pub fn configure_at(&self, listen: &str, agent: &Path, more: &str) -> PathBuf {
        let path = self.path().join("callbox.toml");
        let data = self.data();
        // Slow hosts are no bugs: the deadlines that tests want are written in the tests.
        let text = format!(
            "listen = {listen:?}\ndata_dir = {data:?}\n\
             [local]\nagent = {agent:?}\nboot_timeout_s = 120\n\
             [bot_defaults.timeouts]\nstart_s = 280\nready_s = 240\n{more}"
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// The program with nothing from our environment that could change what it does.
    pub fn callbox(&self, arguments: &[&str]) -> Command {
        let own = self.program();
        let program = if own.exists() { own } else { built().to_owned() };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8")
            .env("TMPDIR", self.path().join("tmp"))
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        command
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        left::end_processes(self.path());
        if std::thread::panicking() {
            left::sweep(self.path());
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            eprintln!("── what the dispatcher said last\n{last}");
        }
    }
}

fn built() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_callbox"))
}

/// See the head of `main.rs`.
fn base() -> PathBuf {
    named("CALLBOX_TEST_DATA_DIR")
}

/// See the head of `main.rs`.
pub fn agent() -> PathBuf {
    named("CALLBOX_AGENT")
}

fn named(variable: &str) -> PathBuf {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else {
        panic!(
            "{variable} is not set; `cargo xtask test vm` builds what these tests need and sets it"
        );
    };
    let path = PathBuf::from(path);
    assert!(path.exists(), "{variable} names {}, which is not there", path.display());
    path.canonicalize().unwrap()
}
