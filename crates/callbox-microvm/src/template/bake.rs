//! Making a template. The stages are drawn in the module header of [`super`].

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callbox_link::{Link, fresh_wake};
use callbox_protocol::agent::{Frozen, HELLO, HELLO_OK, HELLO_RETRY_MS, Prepare};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::{Facts, Found, Manifest, Sealed, Template};
use crate::boot::{Boot, StopWatch, link_error, prepare as prepare_bot, qmp_error};
use crate::cage::Cage;
use crate::config::{MachineShape, Progress};
use crate::error::Error;
use crate::host::Host;
use crate::image::Image;
use crate::lock::FileLock;
use crate::qemu::Memory;
use crate::qmp::{Qmp, QmpError};
use crate::run::vm::{Launch, connect};
use crate::run::{Kind, RunDir, Vm};

/// How long the agent may take to freeze and to close its connection, each.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long QEMU may take to save its devices (20 ms, as a rule) and to quit, each.
const SAVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How much an agent may say beside the answer to a hello, in bytes.
const MAX_NOISE: usize = 64 << 10;
/// Prefix of run directories of bakes. No machine's name can begin so.
const RUN_PREFIX: &str = ".bake-";
/// Prefix of templates in the making.
pub(crate) const BAKING: &str = ".baking-";

impl Host {
    /// Finds the template for this shape, image and bot, or makes it. Any number of callers, in
    /// any number of processes, make it once.
    ///
    /// # Errors
    /// What the failing stage of the bake says; nothing of it is left then.
    pub async fn template(
        &self,
        shape: &MachineShape,
        image: &Image,
        prepare: &Prepare,
        progress: &dyn Progress,
    ) -> Result<Template, Error> {
        shape.check()?;
        let manifest = self.manifest(shape, image, prepare);
        let id = manifest.id();
        if let Some(template) = self.open_template(&id).await? {
            return Ok(template);
        }
        progress.stage("waiting for others who make this template");
        let path = self.template_lock(&id);
        let lock = tokio::task::spawn_blocking(move || FileLock::exclusive(&path));
        let _lock = lock.await.expect("locking a file does not panic")?;
        if let Some(template) = self.open_template(&id).await? {
            return Ok(template);
        }
        let bake = Bake { host: self, manifest, shape, image, progress };
        self.clear_bake(&id).await?;
        let outcome = bake.run(&self.layout.templates().join(&id)).await;
        self.clear_bake(&id).await?;
        outcome?;
        let fresh = self.open_template(&id).await?;
        fresh.ok_or_else(|| Error::Template { id, why: "it vanished after it was made".into() })
    }

    /// Removes what a bake of `id` left behind. The caller holds the template's lock.
    async fn clear_bake(&self, id: &str) -> Result<(), Error> {
        RunDir::destroy(&self.layout, &run_name(id)).await?;
        let staging = self.layout.templates().join(format!("{BAKING}{id}"));
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &staging)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes what bakes left behind whose process died or whose future was dropped.
    ///
    /// # Errors
    /// When a process cannot be killed or a file cannot be removed.
    pub async fn clear_dead_bakes(&self) -> Result<(), Error> {
        let root = self.layout.templates();
        for entry in fs::read_dir(&root).map_err(Error::io("list", &root))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(id) = name.strip_prefix(BAKING) {
                // Whoever bakes holds the lock, and the kernel frees it when he dies.
                if let Some(_lock) = FileLock::try_exclusive(&self.template_lock(id))? {
                    self.clear_bake(id).await?;
                }
            } else if name.starts_with(".removed-") {
                let _ = fs::remove_dir_all(entry.path());
            } else if entry.path().is_dir() && !Found::is_readable(&entry.path()) {
                // Of an older version, or broken: it can never be cloned.
                if let Some(_lock) = FileLock::try_exclusive(&self.template_lock(&name))? {
                    tracing::info!(template.id = name, "removing a template that cannot be read");
                    self.remove_files(&name)?;
                }
            }
        }
        Ok(())
    }
}

fn run_name(id: &str) -> String {
    format!("{RUN_PREFIX}{}", &id[..id.len().min(24)])
}

struct Bake<'a> {
    host: &'a Host,
    manifest: Manifest,
    shape: &'a MachineShape,
    image: &'a Image,
    progress: &'a dyn Progress,
}

impl Bake<'_> {
    async fn run(&self, directory: &Path) -> Result<(), Error> {
        let host = self.host;
        let id = self.manifest.id();
        // The staging directory first: it is what tells of a dead bake.
        let staging = host.layout.templates().join(format!("{BAKING}{id}"));
        fs::create_dir(&staging).map_err(Error::io("create", &staging))?;
        let (run, record) = host.make_directory(&run_name(&id), Kind::Bake, None)?;
        Cage::give(&record.cell, &staging)?;
        let memory = Memory::Shared(staging.join("mem"));
        let invocation = host.invocation(&run, self.shape, memory, Some(&self.image.rootfs));
        let mut watch = StopWatch::new();

        self.progress.stage("booting");
        let boot = Boot {
            host,
            directory: &run,
            record: &record,
            invocation: &invocation,
            template: None,
        };
        let (vm, link) = boot.cold(&mut watch).await?;
        self.progress.stage("preparing the bot");
        prepare_bot(&vm, &link, &self.manifest.prepare).await?;
        watch.mark("prepare");
        self.progress.stage("freezing");
        let frozen = freeze(&vm, link).await?;
        let listening = agent_listens(&vm).await?;
        watch.mark("freeze");
        self.progress.stage("saving");
        save(&vm, &boot.launch()).await?;
        drop(listening);
        watch.mark("save");
        take_back(&staging)?;
        self.finish(frozen, watch, &staging).await?;
        fs::rename(&staging, directory).map_err(Error::io("create", directory))?;
        sync(&host.layout.templates())
    }

    /// Writes the facts, and everything to the disk: after a power failure there is a whole
    /// template or none.
    async fn finish(&self, frozen: Frozen, watch: StopWatch, staging: &Path) -> Result<(), Error> {
        let digest = |file: &str| {
            let path = staging.join(file);
            let reading = tokio::task::spawn_blocking(move || Sealed::of_file(&path));
            async { reading.await.expect("reading a file does not panic").map(|read| read.digest) }
        };
        let (memory_digest, state_digest) = (digest("mem").await?, digest("state").await?);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let facts = Facts {
            manifest: self.manifest.clone(),
            baked_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            memory_digest,
            state_digest,
            listening: frozen.listening,
            stages: watch.stages.iter().map(|(name, took)| ((*name).to_owned(), *took)).collect(),
        };
        let path = staging.join("template.json");
        let text = serde_json::to_vec_pretty(&facts).expect("plain values are always json");
        fs::write(&path, text).map_err(Error::io("write", &path))?;
        for file in ["mem", "state", "template.json"] {
            sync(&staging.join(file))?;
        }
        sync(staging)
    }
}

/// The agent's last word; then it hangs up, and the machine is as its clones will find it.
async fn freeze(vm: &Vm, link: Link) -> Result<Frozen, Error> {
    let call = async { link.freeze().await.map_err(link_error("freeze the machine")) };
    let frozen = vm.within("freeze", FREEZE_TIMEOUT, call).await?;
    let closed = async {
        link.closed().await;
        Ok(())
    };
    vm.within("close the agent's connection", FREEZE_TIMEOUT, closed).await?;
    Ok(frozen)
}

/// Says one hello, and waits for its answer, but goes no further: then the agent stands where
/// the next hello is read. Stopped any earlier, it might still be busy with the end of its last
/// connection, and every clone would take its first hello for a part of that (and wait for the
/// second, 250 ms). The connection must stay open until the state is saved: a port that the
/// host never left tells the clone's agent nothing.
async fn agent_listens(vm: &Vm) -> Result<UnixStream, Error> {
    let path = vm.directory().agent_socket();
    let mut stream = connect(&path).await?;
    let digits = fresh_wake("").generation_id;
    let (hello, answer) = (format!("{HELLO}{digits}\n"), format!("{HELLO_OK}{digits}\n"));
    let answered = async {
        let mut heard = Vec::new();
        loop {
            let said = stream.write_all(hello.as_bytes()).await;
            said.map_err(Error::io("say hello on", &path))?;
            let again = Duration::from_millis(HELLO_RETRY_MS);
            let hearing = hear(&mut stream, answer.as_bytes(), &mut heard);
            match tokio::time::timeout(again, hearing).await {
                Ok(heard) => return heard.map_err(Error::io("hear the agent on", &path)),
                Err(_) => tracing::debug!("the agent is still busy with its last connection"),
            }
        }
    };
    vm.within("listen again", FREEZE_TIMEOUT, answered).await?;
    Ok(stream)
}

/// Reads until `wanted` was heard. Safe to cancel: what was read is in `heard`.
async fn hear(stream: &mut UnixStream, wanted: &[u8], heard: &mut Vec<u8>) -> std::io::Result<()> {
    while !heard.windows(wanted.len()).any(|window| window == wanted) {
        if heard.len() > MAX_NOISE || stream.read_buf(heard).await? == 0 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
    Ok(())
}

/// Stops the guest and has QEMU write its devices to `staging/state`, then quit.
///
/// Through a socket, because QEMU's own ways to a file either start a program, which its cage
/// forbids, or do not exist before version 8.2.
async fn save(vm: &Vm, launch: &Launch<'_>) -> Result<(), Error> {
    let (socket, for_qemu) = launch.beside_memory("s").expect("a bake's memory is a file");
    let listener = UnixListener::bind(&socket).map_err(Error::io("listen on", &socket))?;
    Cage::give(&launch.record.cell, &socket)?;
    let state = socket.with_file_name("state");
    let receive = async {
        let (mut from, _) = listener.accept().await.map_err(Error::io("accept on", &socket))?;
        let mut to = tokio::fs::File::create(&state).await.map_err(Error::io("create", &state))?;
        tokio::io::copy(&mut from, &mut to).await.map_err(Error::io("write", &state))?;
        to.sync_all().await.map_err(Error::io("write", &state))
    };
    let command = async {
        let qmp = Qmp::connect(&vm.directory().qmp_socket()).await;
        let mut qmp = qmp.map_err(qmp_error("connect to save the machine's state"))?;
        migrate(&mut qmp, &for_qemu).await.map_err(qmp_error("save the machine's state"))??;
        Ok(qmp)
    };
    let both = async { tokio::try_join!(receive, command) };
    let ((), mut qmp) = vm.within("save its state", SAVE_TIMEOUT, both).await?;
    match qmp.execute("quit", Value::Null).await {
        // It may be gone before it could say so.
        Ok(_) | Err(QmpError::Closed { .. } | QmpError::Io { .. }) => {}
        Err(source) => return Err(Error::Qmp { stage: "quit after saving", source }),
    }
    vm.ended("quit after it saved its state", SAVE_TIMEOUT).await
}

/// Sends the state to `socket`. The outer error is QMP's, the inner one that of the migration.
async fn migrate(qmp: &mut Qmp, socket: &Path) -> Result<Result<(), Error>, QmpError> {
    qmp.execute("stop", Value::Null).await?;
    let on = |capability: &str| json!({ "capability": capability, "state": true });
    let capabilities = [on("x-ignore-shared"), on("events")];
    qmp.execute("migrate-set-capabilities", json!({ "capabilities": capabilities })).await?;
    qmp.execute("migrate", json!({ "uri": format!("unix:{}", socket.display()) })).await?;
    let ended = |status: &Value| matches!(status.as_str(), Some("completed" | "failed"));
    let event =
        qmp.wait_event(|event| event.name == "MIGRATION" && ended(&event.data["status"])).await?;
    if event.data["status"] != "completed" {
        let answer = qmp.execute("query-migrate", Value::Null).await?;
        let why = answer["error-desc"].as_str().unwrap_or("qemu does not say why").to_owned();
        return Ok(Err(Error::Save(why)));
    }
    Ok(Ok(()))
}

/// What the machine wrote is ours from now on, and nothing else is kept.
fn take_back(staging: &Path) -> Result<(), Error> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    for entry in fs::read_dir(staging).map_err(Error::io("list", staging))?.flatten() {
        let path = entry.path();
        match entry.file_name().to_str() {
            Some("mem" | "state") => {
                std::os::unix::fs::chown(&path, Some(uid.as_raw()), Some(gid.as_raw()))
                    .map_err(Error::io("take back", &path))?;
            }
            _ => fs::remove_file(&path).map_err(Error::io("remove", &path))?,
        }
    }
    std::os::unix::fs::chown(staging, Some(uid.as_raw()), Some(gid.as_raw()))
        .map_err(Error::io("take back", staging))
}

fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("write out", path))
}
