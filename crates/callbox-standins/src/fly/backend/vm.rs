//! The backend that really runs machines: microVMs of this host, booted cold.
//!
//! The stand-in is to the machine what Fly's own init is: over the serial port it tells our agent
//! which program to run with which environment, and hears how it ended. What the program does,
//! dialling its dispatcher for instance, is its own business.
//!
//! What it is not: signals other than those that end a program are not delivered, and every one
//! that ends it is a SIGTERM; files are written by a shell of the image's, as root; a suspended
//! machine stands still and keeps its memory on this host, and is not written to a disk; machines
//! reach the internet or nothing ([`VmConfig::network`]), and of this host, single ports ([`Way`]).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use callbox_fly::limits;
use callbox_fly::wire::ImageRef;
use callbox_link::Link;
use callbox_microvm::image::{Image, ImageStore};
use callbox_microvm::{From as Origin, Host, MachineShape, Start, chain};
pub use callbox_microvm::{HostConfig, Network};
use callbox_protocol::agent::{AgentEventKind, CommandReady, Contract, Prepare, SessionData};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::argv;
use super::way::{Way, lead};
use super::{Backend, Boot, Exit, Spec};

/// Signals that end a program which does not expect them, and mean a stop.
const ENDING: [&str; 4] = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"];
/// How long the agent may take to take note of a stop.
const PROMPT: Duration = Duration::from_secs(5);
/// Largest writable layer, in MiB; it lives in the machine's memory.
const DISK_MIB: u32 = 512;

/// What the backend is made of.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// The host. Its data directory is this backend's alone: what it finds there, it destroys.
    pub host: HostConfig,
    /// The data directory in which the images lie.
    pub images: PathBuf,
    /// What machines reach. This host is never in it.
    pub network: Network,
    /// What they reach all the same, by their own loopback.
    pub ways: Vec<Way>,
}

/// MicroVMs of this host.
#[derive(Debug)]
pub struct Vm {
    host: Host,
    images: Arc<ImageStore>,
    network: Network,
    ways: Vec<Way>,
    runs: Mutex<HashMap<String, Run>>,
}

#[derive(Debug)]
struct Run {
    link: Link,
    ended: watch::Receiver<Option<Exit>>,
    end: Arc<watch::Sender<Option<Exit>>>,
    /// Ways out of it. None while it stands still: what was open is dead when it goes on.
    ways: JoinSet<()>,
    /// Ends with it.
    _watch: JoinSet<()>,
}

impl Vm {
    /// Opens the host and destroys what an earlier one left on it.
    ///
    /// # Errors
    /// What is missing on this host, in words.
    pub async fn open(config: VmConfig) -> Result<Vm, String> {
        let VmConfig { host, images, network, ways } = config;
        let host = Host::open(host).await.map_err(|error| chain(&error))?;
        for left in host.list().await.map_err(|error| chain(&error))? {
            tracing::info!(machine.name = left.name, "removing what an earlier stand-in left");
            host.destroy(&left.name).await.map_err(|error| chain(&error))?;
        }
        let images = blocking(move || ImageStore::open(&images)).await;
        let images = images.map_err(|error| error.to_string())?;
        Ok(Vm { host, images: Arc::new(images), network, ways, runs: Mutex::default() })
    }

    /// What runs the machines' instructions, and what is not enforced around them.
    pub fn about(&self) -> (String, Vec<String>) {
        let lacks = self.host.not_enforced_with(&self.network);
        (self.host.accelerator().to_string(), lacks)
    }

    /// Takes away what the host has for all machines together, when there are none any more.
    ///
    /// # Errors
    /// What is left.
    pub async fn tidy(&self) -> Result<(), String> {
        self.host.networks().tidy().await.map_err(|error| chain(&error))
    }

    async fn image(&self, reference: &str) -> Option<Image> {
        let (name, digest) = name_and_digest(reference);
        let images = Arc::clone(&self.images);
        blocking(move || match digest {
            None => images.get(&name).ok(),
            Some(digest) => {
                let now = images.get(&name).ok().filter(|image| image.digest == digest);
                now.or_else(|| images.get_version(&name, &digest).ok())
            }
        })
        .await
    }

    fn with<T>(&self, id: &str, what: impl FnOnce(&Run) -> T) -> Option<T> {
        self.runs.lock().expect("no panic while held").get(id).map(what)
    }

    fn change(&self, id: &str, how: impl FnOnce(&mut Run)) {
        if let Some(run) = self.runs.lock().expect("no panic while held").get_mut(id) {
            how(run);
        }
    }

    /// What leads out of a machine, for as long as the answer is kept.
    fn lead_out(&self, link: &Link) -> JoinSet<()> {
        self.ways.iter().map(|way| lead(link.clone(), *way)).collect()
    }

    /// Lets a machine that was suspended go on; whether it does. Also one whose suspend was broken
    /// off: it may stand still or not.
    async fn resume(&self, id: &str) -> bool {
        let lives = |run: &Run| run.ended.borrow().is_none().then(|| run.link.clone());
        let Some(link) = self.with(id, lives).flatten() else { return false };
        match self.host.go_on(&name(id)).await {
            Ok(()) => {
                let ways = self.lead_out(&link);
                self.change(id, |run| run.ways = ways);
                true
            }
            Err(error) => {
                tracing::warn!(fly.machine = id, error = %chain(&error), "its memory is lost");
                false
            }
        }
    }

    /// The words for the host, or why there is no such machine.
    async fn plan(&self, spec: &Spec) -> Result<Start, String> {
        let reference = spec.config.image.clone().unwrap_or_default();
        let image = self.image(&reference).await;
        let image = image.ok_or_else(|| format!("there is no image {reference:?}"))?;
        let guest = spec.config.guest.clone().unwrap_or_default();
        let memory_mib = guest.memory_mb.unwrap_or(256);
        let shape = MachineShape {
            memory_mib,
            vcpus: u8::try_from(guest.cpus.unwrap_or(1)).unwrap_or(u8::MAX),
            disk_mib: (memory_mib / 2).min(DISK_MIB),
            network: self.network.clone(),
        };
        let program = argv::program(&spec.config, &image.config.argv)?;
        let ours = if spec.config.files.is_empty() { image.config.uid } else { 0 };
        let prepare = Prepare {
            contract: Contract::Command { ready: CommandReady::Started, warning_signal: None },
            argv: program,
            env: image.config.env.clone(),
            cwd: image.config.cwd.clone(),
            uid: ours,
            gid: if spec.config.files.is_empty() { image.config.gid } else { 0 },
            port: 8080,
            ready_timeout_ms: 60_000,
        };
        Ok(Start { name: name(&spec.id), from: Origin::Cold, shape, image, prepare })
    }
}

/// The name on this host.
fn name(id: &str) -> String {
    format!("fly-{id}")
}

/// `registry.fly.io/parrot:v1@sha256:ab` is the image `parrot` in the version `ab`.
fn name_and_digest(reference: &str) -> (String, Option<String>) {
    let (path, digest) = match reference.split_once('@') {
        Some((path, digest)) => (path, Some(digest)),
        None => (reference, None),
    };
    let last = path.rsplit('/').next().unwrap_or_default();
    let name = last.split(':').next().unwrap_or_default();
    let digest = digest.map(|digest| digest.strip_prefix("sha256:").unwrap_or(digest).to_owned());
    (name.to_owned(), digest)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work on images does not panic")
}

/// Waits for the program's end, and tells what it writes.
async fn watch_over(id: String, link: Link, end: Arc<watch::Sender<Option<Exit>>>) {
    let logs = async {
        let mut logs = link.logs(0);
        while let Some(Ok(line)) = logs.next().await {
            tracing::info!(fly.machine = id, stream = ?line.stream, "{}", line.text);
        }
        std::future::pending::<Exit>().await
    };
    let exit = tokio::select! {
        exit = ended(&link) => exit,
        exit = logs => exit,
    };
    finish(&end, exit);
}

async fn ended(link: &Link) -> Exit {
    let mut after = 0;
    while !link.is_closed() {
        let mut events = link.events(after);
        while let Some(Ok(event)) = events.next().await {
            after = event.seq;
            match event.kind {
                AgentEventKind::BotExited { code, signal, out_of_memory } => {
                    let code = code.unwrap_or_else(|| 128 + signal.unwrap_or_default());
                    return Exit { code, signal, oom_killed: out_of_memory };
                }
                // It could not be run at all: what a shell says then.
                AgentEventKind::NotReady { .. } => return Exit::code(127),
                AgentEventKind::Ready | AgentEventKind::Unknown => {}
            }
        }
        // The stream broke and the connection did not: another one begins where this one ended.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Exit::killed()
}

fn finish(end: &watch::Sender<Option<Exit>>, exit: Exit) -> bool {
    end.send_if_modified(|ended| {
        let first = ended.is_none();
        ended.get_or_insert(exit);
        first
    })
}

#[async_trait]
impl Backend for Vm {
    fn name(&self) -> &'static str {
        "vm"
    }

    async fn find_image(&self, image: &str) -> Option<ImageRef> {
        let found = self.image(image).await?;
        Some(ImageRef {
            registry: Some("this-host".into()),
            repository: Some(found.name.clone()),
            digest: Some(format!("sha256:{}", found.digest)),
            ..ImageRef::default()
        })
    }

    async fn build(&self, spec: &Spec) -> Result<(), String> {
        self.plan(spec).await.map(|_| ())
    }

    async fn start(&self, spec: &Spec, boot: Boot) -> Result<Boot, String> {
        if boot == Boot::Resume && self.resume(&spec.id).await {
            return Ok(Boot::Resume);
        }
        // One that was given up half made has this name still.
        self.destroy(&spec.id).await?;
        let start = self.plan(spec).await?;
        let started = self.host.start(start).await.map_err(|error| chain(&error))?;
        let session = SessionData {
            session_id: spec.id.clone(),
            incarnation: 1,
            bot: spec.app.clone(),
            transport: "none".into(),
            room_url: String::new(),
            token: String::new(),
            body: serde_json::Value::Null,
            env: spec.env(),
            longest_life_ms: None,
        };
        let link = started.link;
        let ways = self.lead_out(&link);
        link.session(&session).await.map_err(|error| error.to_string())?;
        let (end, ended) = watch::channel(None);
        let end = Arc::new(end);
        let mut watch = JoinSet::new();
        watch.spawn(watch_over(spec.id.clone(), link.clone(), Arc::clone(&end)));
        let run = Run { link, ended, end, ways, _watch: watch };
        self.runs.lock().expect("no panic while held").insert(spec.id.clone(), run);
        Ok(if boot == Boot::First { Boot::First } else { Boot::Cold })
    }

    async fn ended(&self, id: &str) -> Exit {
        let Some(mut ended) = self.with(id, |run| run.ended.clone()) else {
            return Exit::killed();
        };
        match ended.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_default(),
            Err(_) => Exit::killed(),
        }
    }

    async fn signal(&self, id: &str, signal: &str) {
        let Some(link) = self.with(id, |run| run.link.clone()) else { return };
        if !ENDING.contains(&signal) {
            tracing::warn!(fly.machine = id, signal, "the agent delivers no such signal");
            return;
        }
        // Whoever asked has a grace of its own, and kills when that is over.
        match tokio::time::timeout(PROMPT, link.stop(limits::STOP_TIMEOUT)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(fly.machine = id, %error, "not told to stop"),
            Err(_) => tracing::debug!(fly.machine = id, "not told to stop in time"),
        }
    }

    async fn end(&self, id: &str, exit: Exit) -> bool {
        self.with(id, |run| finish(&run.end, exit)).unwrap_or_default()
    }

    async fn kill(&self, id: &str) {
        if let Err(why) = self.destroy(id).await {
            tracing::warn!(fly.machine = id, why, "is left over until it is destroyed");
        }
    }

    fn can_suspend(&self, _spec: &Spec) -> Result<(), String> {
        Ok(())
    }

    async fn suspend(&self, spec: &Spec) -> Result<(), String> {
        // First, so that the machine itself sees nothing of it before it goes on.
        self.host.pause(&name(&spec.id)).await.map_err(|error| chain(&error))?;
        self.change(&spec.id, |run| run.ways = JoinSet::new());
        Ok(())
    }

    async fn destroy(&self, id: &str) -> Result<(), String> {
        self.runs.lock().expect("no panic while held").remove(id);
        self.host.destroy(&name(id)).await.map_err(|error| chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_of_a_reference_names_the_image() {
        for (reference, name, digest) in [
            ("parrot", "parrot", None),
            ("registry.fly.io/bots/parrot:v1", "parrot", None),
            ("localhost:5000/parrot@sha256:ab", "parrot", Some("ab")),
        ] {
            assert_eq!(name_and_digest(reference), (name.to_owned(), digest.map(str::to_owned)));
        }
    }
}
