//! `cargo xtask demo`: one real call in a real machine, from nothing.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{build, host, packages, steps::text};

/// Make a real call to a real bot in a machine of its own
///
/// Installs what is missing (Debian packages; asks first at a terminal), builds callbox and the
/// image of the example bot, makes its template, starts the dispatcher, places one call, shows
/// where its time went, and serves the web page until Ctrl-C. The second run starts in seconds:
/// everything slow is kept and made anew only when what it is made of has changed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exit after the call; the exit code says whether audio came back
    #[arg(long)]
    once: bool,
    /// Print one JSON object instead of pictures
    #[arg(long)]
    json: bool,
    /// Install packages without asking
    #[arg(long, short)]
    yes: bool,
    /// Where to serve
    #[arg(long, default_value = "127.0.0.1:7860", value_name = "ADDRESS")]
    listen: String,
}

/// How long the host may take to make a template, with all its retries.
const READY: Duration = Duration::from_secs(600);

pub fn run(args: &Args) -> anyhow::Result<()> {
    let began = Instant::now();
    if !host::is_root() {
        return host::again_as_root();
    }
    packages::ensure(packages::MACHINES, args.yes)?;
    let callbox = build::callbox(true)?;
    let data_dir = host::target().join("demo");
    std::fs::create_dir_all(&data_dir)?;
    build::image(&callbox, &data_dir, "parrot.toml")?;
    let key = key(&callbox, &data_dir)?;
    let mut dispatcher = Dispatcher::start(&callbox, &data_dir, &args.listen)?;
    dispatcher.wait_until_ready()?;
    eprintln!(
        "── a call from this terminal ({:.1} s after the beginning)",
        began.elapsed().as_secs_f64()
    );
    let heard = data_dir.join("heard.wav");
    let mut call = Command::new(&callbox);
    call.args(["call", "--url", &dispatcher.url, "--out", text(&heard)]);
    call.env("CALLBOX_KEY", &key).stdin(Stdio::null());
    if args.json {
        call.args(["--json", "--quiet"]);
    }
    let status = call.status().context("cannot run callbox call")?;
    eprintln!("   everything up to here took {:.1} s", began.elapsed().as_secs_f64());
    if args.once {
        dispatcher.stop()?;
        std::process::exit(status.code().unwrap_or(1));
    }
    eprintln!("\nTalk to the parrot yourself:  {}/#key={key}\nCtrl-C ends it.\n", dispatcher.url);
    dispatcher.serve_until_it_ends()
}

/// The demo's own key: made once, kept where only we can read it.
pub fn key(callbox: &Path, data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("demo.key");
    if let Ok(key) = std::fs::read_to_string(&path) {
        return Ok(key.trim().to_owned());
    }
    let output = Command::new(callbox)
        .args(["keys", "create", "--private", "--name", "demo"])
        .env("CALLBOX_DATA_DIR", data_dir)
        .output()
        .context("cannot run callbox keys")?;
    if !output.status.success() {
        bail!("cannot make a key: {}", String::from_utf8_lossy(&output.stderr));
    }
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(&output.stdout)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `callbox serve`, ours to end.
pub struct Dispatcher {
    child: Child,
    /// Where it serves.
    pub url: String,
    log: PathBuf,
}

impl Dispatcher {
    /// Starts it; its log goes to a file in the data directory.
    pub fn start(callbox: &Path, data_dir: &Path, listen: &str) -> anyhow::Result<Dispatcher> {
        Dispatcher::start_with(callbox, data_dir, listen, &[])
    }

    /// The same with more arguments for `callbox serve`.
    pub fn start_with(
        callbox: &Path,
        data_dir: &Path,
        listen: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Dispatcher> {
        eprintln!("── start the dispatcher");
        let log = data_dir.join("serve.log");
        let mut child = Command::new(callbox)
            .arg("serve")
            .args(arguments)
            .env("CALLBOX_DATA_DIR", data_dir)
            .env("CALLBOX_LISTEN", listen)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("cannot run callbox serve")?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line)?;
        let Some(url) = line.trim().strip_prefix("callbox serves on ") else {
            let _ = child.wait();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("the dispatcher does not serve:\n{said}");
        };
        Ok(Dispatcher { url: url.to_owned(), child, log })
    }

    /// Waits until every bot is prepared, and tells what that is at.
    pub fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut shown = String::new();
        let mut since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the dispatcher ended with {status}:\n{said}");
            }
            let answer = self.readyz().unwrap_or(Value::Null);
            if answer["status"] == "ok" {
                break;
            }
            let at = answer["preparing"].as_object().into_iter().flatten().next();
            let at = at.map(|(bot, stage)| format!("{bot}: {}", stage.as_str().unwrap_or("?")));
            if let Some(at) = at.filter(|at| *at != shown) {
                if !shown.is_empty() {
                    eprintln!("   {shown}: {:.1} s", since.elapsed().as_secs_f64());
                }
                (shown, since) = (at, Instant::now());
            }
            if began.elapsed() > READY {
                bail!(
                    "the bot was not prepared within {} s; see {}",
                    READY.as_secs(),
                    self.log.display()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if !shown.is_empty() {
            eprintln!("   {shown}: {:.1} s", since.elapsed().as_secs_f64());
        }
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        if let Some(line) = log.lines().find(|line| line.contains("cannot be prepared")) {
            bail!("{line}");
        }
        Ok(())
    }

    /// One small request does not need an HTTP library in the build of every newcomer.
    fn readyz(&self) -> Option<Value> {
        let address = self.url.strip_prefix("http://")?;
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as Ctrl-C does, and waits.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }

    /// Ctrl-C reaches the dispatcher by itself (same process group); we wait for its end.
    fn serve_until_it_ends(mut self) -> anyhow::Result<()> {
        ignore_interrupts();
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the dispatcher ended with {status}; see {}", self.log.display());
        }
        Ok(())
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.stop();
        }
    }
}

fn ignore_interrupts() {
    // Our own default at Ctrl-C would end us before the dispatcher has cleaned up.
    let _ = ctrlc::set_handler(|| {});
}
