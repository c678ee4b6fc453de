//! A PostgreSQL server of our own, for as long as something is tried with it.
//!
//! It lives in a temporary directory and listens on a free port of 127.0.0.1, with a password of
//! its own. A shell stands by it and waits for the end of its input, which comes however we end:
//! then the server is stopped and its directory removed, also after Ctrl-C or a kill.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{
    host, packages,
    steps::{answer, command, step, text},
};

/// Where tests look for a server's address.
pub const ADDRESS: &str = "CALLBOX_TEST_POSTGRES";

/// Who may run it: it refuses to be root.
const USER: &str = "postgres";

/// How long it may take to begin.
const BEGIN: Duration = Duration::from_secs(60);

/// What it says when its port is taken.
const NO_PORT: &str = "could not create any TCP/IP sockets";

/// Its port may be taken between our look and its own.
const ATTEMPTS: usize = 3;

/// Stands by the server until its input ends. Nothing here outlives a test, so nothing is synced.
const STAND_BY: &str = r#"
trap '' INT TERM HUP
"$1/postgres" -D "$2/data" -c listen_addresses=127.0.0.1 -c port="$3" \
    -c unix_socket_directories= -c max_connections=300 \
    -c fsync=off -c synchronous_commit=off -c full_page_writes=off \
    -c log_min_messages=warning >"$2/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -INT "$server"
wait "$server"
rm -rf "$2"
"#;

/// A server; stopped and removed when it is dropped.
#[derive(Debug)]
pub struct Postgres {
    /// Ends when its input does.
    stand_by: Child,
    /// `postgres://…/postgres`, of a user who may make databases.
    pub url: String,
}

impl Postgres {
    /// Installs the package if it is not there, and starts a server.
    pub fn start(yes: bool) -> anyhow::Result<Postgres> {
        packages::ensure(packages::POSTGRES, yes)?;
        let programs = programs()?;
        for attempt in 1.. {
            match Postgres::begin(&programs) {
                Err(error) if attempt < ATTEMPTS => eprintln!("   again, as {error:#}"),
                done => return done,
            }
        }
        unreachable!("the last attempt returns")
    }

    fn begin(programs: &Path) -> anyhow::Result<Postgres> {
        let place = Place::new()?;
        let password = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
        let password_file = place.dir.join("password");
        fs::write(&password_file, &password)?;
        let mut init = as_user(&programs.join("initdb"));
        init.args(["--username=callbox", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"])
            .args(["--locale=C", "--pwfile", text(&password_file), "-D"])
            .arg(place.dir.join("data"));
        // It reads the file as another user.
        give(&password_file)?;
        step("make a PostgreSQL for tests", &mut init)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut stand_by = as_user(Path::new("sh"));
        stand_by.args(["-c", STAND_BY, "sh", text(programs), text(&place.dir), &port.to_string()]);
        let url = format!("postgres://callbox:{password}@127.0.0.1:{port}/postgres");
        // Ctrl-C is for us; it ends when we do.
        let stand_by = stand_by.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let stand_by = stand_by.spawn().context("cannot start PostgreSQL")?;
        let log = place.dir.join("log");
        place.hand_over();
        let mut started = Postgres { stand_by, url };
        started.wait_until_ready(programs, port, &log)?;
        Ok(started)
    }

    fn wait_until_ready(&mut self, programs: &Path, port: u16, log: &Path) -> anyhow::Result<()> {
        let began = Instant::now();
        let port = port.to_string();
        let asks = ["-q", "-h", "127.0.0.1", "-p", &port];
        while answer(text(&programs.join("pg_isready")), &asks).is_none() {
            let said = fs::read_to_string(log).unwrap_or_default();
            if began.elapsed() > BEGIN || said.contains(NO_PORT) {
                bail!("PostgreSQL does not start: {said}");
            }
            if let Some(status) = self.stand_by.try_wait()? {
                bail!("PostgreSQL ended with {status}: {said}");
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The end of its input is what it waits for.
        drop(self.stand_by.stdin.take());
        if let Err(error) = self.stand_by.wait() {
            eprintln!("a PostgreSQL may be left: {error}");
        }
    }
}

/// The server's directory, until the shell that stands by has it.
struct Place {
    dir: PathBuf,
    ours: bool,
}

impl Place {
    fn new() -> anyhow::Result<Place> {
        let name = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let dir = std::env::temp_dir().join(format!("callbox-postgres-{}", &name[..8]));
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let place = Place { dir, ours: true };
        fs::set_permissions(&place.dir, fs::Permissions::from_mode(0o700))?;
        give(&place.dir)?;
        Ok(place)
    }

    fn hand_over(mut self) {
        self.ours = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The newest server's programs.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .max_by_key(|bin| {
            let version = bin.parent().and_then(Path::file_name).unwrap_or_default();
            version.to_string_lossy().parse::<u32>().unwrap_or(0)
        });
    newest.context("no PostgreSQL server under /usr/lib/postgresql")
}

/// A program as somebody who is not root, at home where everybody may be.
fn as_user(program: &Path) -> Command {
    let mut command = if host::is_root() {
        let who = [&format!("--reuid={USER}"), &format!("--regid={USER}")];
        let mut command = command("setpriv", &[who[0], who[1], "--clear-groups", "--"]);
        command.arg(program);
        command
    } else {
        command(text(program), &[])
    };
    command.current_dir("/").env("LC_ALL", "C");
    command
}

/// Makes a file the server's.
fn give(path: &Path) -> anyhow::Result<()> {
    if !host::is_root() {
        return Ok(());
    }
    let id = |flag| answer("id", &[flag, USER]).and_then(|text| text.parse::<u32>().ok());
    let (user, group) = (id("-u"), id("-g"));
    if user.is_none() {
        bail!("there is no user {USER}, who comes with the package");
    }
    std::os::unix::fs::chown(path, user, group).context("cannot give it to PostgreSQL's user")
}
