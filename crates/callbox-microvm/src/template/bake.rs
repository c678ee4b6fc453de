//! Making a template. The stages are drawn in the module header of [`super`].

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callbox_link::{Link, fresh_wake};
use callbox_protocol::agent::{Frozen, HELLO, HELLO_OK, HELLO_RETRY_MS, Prepare};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::{Facts, Found, Manifest, Raw, Sealed, Template};
use crate::boot::{Boot, StopWatch, link_error, prepare as prepare_bot, qmp_error};
use crate::config::{MachineShape, Progress};
use crate::error::Error;
use crate::host::Host;
use crate::image::Image;
use crate::lock::FileLock;
use crate::qemu::Memory;
use crate::qmp::{Qmp, QmpError};
use crate::run::vm::connect;
use crate::run::{Kind, RunDir, Vm};

/// How long the agent may take to freeze and to close its connection, each.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long QEMU may take to save its devices (20 ms, as a rule) and to quit, each.
const SAVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest state that is taken, in bytes. Real ones are below 100 KB.
const MAX_STATE: u64 = 16 << 20;
/// How much an agent may say beside the answer to a hello, in bytes.
const MAX_NOISE: usize = 64 << 10;
/// Prefix of run directories of bakes. No machine's name can begin so.
pub(crate) const RUN_PREFIX: &str = ".bake-";
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
        let _lock = self.lock_template(&id).await?;
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
        for directory in RunDir::all(&self.layout)? {
            // Its staging directory may be a template already.
            if let Some(id) = directory.name().strip_prefix(RUN_PREFIX)
                && let Some(_lock) = FileLock::try_exclusive(&self.template_lock(id))?
            {
                self.clear_bake(id).await?;
            }
        }
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
    format!("{RUN_PREFIX}{id}")
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
        // No name of ours is in the machine's reach: it writes to what only we read afterwards.
        let raw = Raw::new(self.shape.memory_mib)?;
        let rootfs = Some(self.image.rootfs.as_path());
        let invocation = host.invocation(&run, self.shape, Memory::Shared, rootfs);
        let mut watch = StopWatch::new();

        self.progress.stage("booting");
        let boot = Boot {
            host,
            directory: &run,
            record: &record,
            invocation: &invocation,
            template: None,
            becomes: Some(&raw),
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
        let state = save(&vm).await?;
        drop(listening);
        watch.mark("save");
        self.finish(frozen, watch, &staging, raw, &state).await?;
        fs::rename(&staging, directory).map_err(Error::io("create", directory))?;
        sync(&host.layout.templates())
    }

    /// Writes the facts, and everything to the disk: after a power failure there is a whole
    /// template or none.
    async fn finish(
        &self,
        frozen: Frozen,
        watch: StopWatch,
        staging: &Path,
        raw: Raw,
        state: &[u8],
    ) -> Result<(), Error> {
        let (memory, devices) = (staging.join("mem"), staging.join("state"));
        fs::write(&devices, state).map_err(Error::io("write", &devices))?;
        let writing = tokio::task::spawn_blocking(move || {
            Ok::<_, Error>((raw.save(&memory)?, Sealed::of_file(&devices)?.digest))
        });
        let digests = writing.await.expect("writing a file does not panic");
        let (memory_digest, state_digest) = digests?;
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

/// Stops the guest and has QEMU send us its devices, then quit.
///
/// Through a descriptor that is passed to it: its own ways to a file either start a program,
/// which its cage forbids, or do not exist before version 8.2, and a path is nothing that a
/// machine should have a say in.
async fn save(vm: &Vm) -> Result<Vec<u8>, Error> {
    let path = vm.directory().qmp_socket();
    let (ours, theirs) =
        UnixStream::pair().map_err(Error::io("make a pair of sockets for", &path))?;
    let receive = async {
        let mut state = Vec::new();
        let received = ours.take(MAX_STATE + 1).read_to_end(&mut state).await;
        received.map_err(Error::io("receive the state from", &path))?;
        if state.len() as u64 > MAX_STATE {
            return Err(Error::Save(format!("its state is larger than {MAX_STATE} bytes")));
        }
        Ok(state)
    };
    let command = async {
        let qmp = Qmp::connect(&path).await;
        let mut qmp = qmp.map_err(qmp_error("connect to save the machine's state"))?;
        migrate(&mut qmp, theirs).await.map_err(qmp_error("save the machine's state"))??;
        Ok(qmp)
    };
    let both = async { tokio::try_join!(receive, command) };
    let (state, mut qmp) = vm.within("save its state", SAVE_TIMEOUT, both).await?;
    match qmp.execute("quit", Value::Null).await {
        // It may be gone before it could say so.
        Ok(_) | Err(QmpError::Closed { .. } | QmpError::Io { .. }) => {}
        Err(source) => return Err(Error::Qmp { stage: "quit after saving", source }),
    }
    vm.ended("quit after it saved its state", SAVE_TIMEOUT).await?;
    Ok(state)
}

/// Sends the state to `to`. The outer error is QMP's, the inner one that of the migration.
async fn migrate(qmp: &mut Qmp, to: UnixStream) -> Result<Result<(), Error>, QmpError> {
    qmp.execute("stop", Value::Null).await?;
    let on = |capability: &str| json!({ "capability": capability, "state": true });
    let capabilities = [on("x-ignore-shared"), on("events")];
    qmp.execute("migrate-set-capabilities", json!({ "capabilities": capabilities })).await?;
    qmp.pass_descriptor("state", to.as_fd()).await?;
    // QEMU's copy is the only one then, and its end is the end.
    drop(to);
    qmp.execute("migrate", json!({ "uri": "fd:state" })).await?;
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

fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("write out", path))
}
