//! Templates: machines that were prepared, frozen and saved, for others to start from.
//!
//! ```text
//! <data_dir>/templates/<id>/      id = hash of the manifest
//!     mem                         the guest's memory
//!     state                       QEMU's devices, 50-70 KB
//!     template.json               the manifest, digests of both files, and how it went
//! <data_dir>/templates/<id>.lock  exclusive: baking or removing
//!
//!   files ── read once, digest checked ──► sealed memory ── mapped copy-on-write ──► clones
//! ```
//!
//! A bake boots a machine whose memory is shared with us through a descriptor, prepares and freezes
//! it, and has QEMU send all but the memory (`x-ignore-shared`) over another one. Nothing that the
//! machine can reach has a name. It works in `.baking-<id>` and a run directory of its own; one
//! rename makes the template. A bake that dies leaves both behind; the next one, or
//! the next [`Host::open`](crate::Host::open), removes them.
//!
//! To be cloned, a template is opened: its files go into memory that the kernel seals
//! ([`sealed`]). From then on nothing that happens to the files matters to its clones, so files
//! may be replaced and removed at any time; the memory goes when its last user does. Files that
//! are not what was baked are refused when they are opened, and the template is made again.
//!
//! Whatever would make a clone differ from what was frozen (another QEMU, kernel, agent, image,
//! shape, bot) makes another manifest, and so another template.

mod bake;
mod manifest;
mod sealed;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::MachineShape;
use crate::error::{Error, chain};
use crate::host::Host;
use crate::image::Image;
use crate::lock::FileLock;
use crate::run::RunDir;
use callbox_protocol::agent::Prepare;

pub(crate) use bake::{BAKING, RUN_PREFIX};
pub use manifest::Manifest;
pub(crate) use sealed::{Raw, Sealed};

/// How long whoever waits for a template's lock waits before asking again.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A template that can be cloned: checked, and held in memory.
#[derive(Clone, Debug)]
pub struct Template {
    id: String,
    facts: Arc<Facts>,
    pub(crate) memory: Arc<Sealed>,
    pub(crate) state: Arc<Sealed>,
}

/// A template on the disk.
#[derive(Clone, Debug)]
pub struct Found {
    id: String,
    directory: PathBuf,
    facts: Arc<Facts>,
}

/// What stands in `template.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What the template is of.
    pub manifest: Manifest,
    /// When it was made, milliseconds since the epoch.
    pub baked_at_ms: u64,
    /// Digest of its memory.
    pub memory_digest: String,
    /// Digest of its devices' state.
    pub state_digest: String,
    /// Sockets on which the frozen machine listens.
    pub listening: Vec<String>,
    /// How long each stage of the bake took.
    pub stages: Vec<(String, Duration)>,
}

impl Template {
    /// The hash of its manifest, 32 hex digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is of, and how it was made.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How much of the host's memory it holds, in bytes. All its clones share it.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.memory.held_bytes + self.state.held_bytes
    }

    /// Refuses a template of something else.
    pub(crate) fn check(&self, wanted: &Manifest) -> Result<(), Error> {
        match self.facts.manifest.difference(wanted) {
            None => Ok(()),
            Some(why) => Err(Error::Template { id: self.id.clone(), why }),
        }
    }
}

impl Found {
    /// The hash of its manifest, 32 hex digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is of, and how it was made.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How much of the host's disk it takes, in bytes. The memory file has holes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        ["mem", "state"]
            .iter()
            .filter_map(|file| fs::metadata(self.directory.join(file)).ok())
            .map(|metadata| metadata.blocks() * 512)
            .sum()
    }

    /// Reads the template in `directory`; `None` if there is none, or none that can be trusted.
    fn read(directory: &Path) -> Result<Option<Found>, Error> {
        let path = directory.join("template.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let id = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let facts: Facts = match serde_json::from_slice(&text) {
            Ok(facts) => facts,
            Err(error) => {
                tracing::warn!(template.id = id, %error, "a template is unreadable and left out");
                return Ok(None);
            }
        };
        Ok((facts.manifest.id() == id).then(|| Found {
            id,
            directory: directory.to_path_buf(),
            facts: Arc::new(facts),
        }))
    }

    /// Whether there is a template in `directory` that this version could read.
    fn is_readable(directory: &Path) -> bool {
        fs::read(directory.join("template.json"))
            .is_ok_and(|text| serde_json::from_slice::<Facts>(&text).is_ok())
    }

    /// Takes it into memory, and checks it on the way. Blocks while it reads.
    ///
    /// # Errors
    /// [`Error::TemplateDamaged`] if its files are not what was baked.
    fn open(self) -> Result<Template, Error> {
        let damaged = |why: String| Error::TemplateDamaged { id: self.id.clone(), why };
        let sealed = |file: &str, digest: &str| {
            let sealed =
                Sealed::of_file(&self.directory.join(file)).map_err(|error| match error {
                    Error::Io { source, .. } if says_damaged(&source) => {
                        damaged(format!("its file {file:?} is missing or cut short"))
                    }
                    error => error,
                })?;
            if sealed.digest == digest {
                Ok(Arc::new(sealed))
            } else {
                Err(damaged(format!("its file {file:?} was changed")))
            }
        };
        let memory = sealed("mem", &self.facts.memory_digest)?;
        let state = sealed("state", &self.facts.state_digest)?;
        Ok(Template { id: self.id, facts: self.facts, memory, state })
    }
}

fn says_damaged(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

impl Host {
    /// The id of the template for this shape, image and bot, whether or not it was made.
    #[must_use]
    pub fn template_id(&self, shape: &MachineShape, image: &Image, prepare: &Prepare) -> String {
        self.manifest(shape, image, prepare).id()
    }

    /// All templates on the disk, also those that the current QEMU, kernel or agent can no
    /// longer clone.
    ///
    /// # Errors
    /// When the templates cannot be read.
    pub fn templates(&self) -> Result<Vec<Found>, Error> {
        let root = self.layout.templates();
        let mut templates = Vec::new();
        for entry in fs::read_dir(&root).map_err(Error::io("list", &root))? {
            let path = entry.map_err(Error::io("list", &root))?.path();
            if path.is_dir() {
                templates.extend(Found::read(&path)?);
            }
        }
        templates.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(templates)
    }

    /// Whether the current QEMU, kernel, agent and processor can clone it.
    #[must_use]
    pub fn can_clone(&self, template: &Found) -> bool {
        self.is_like(&template.facts.manifest)
    }

    /// How many machines of this host are clones of the template `id`.
    ///
    /// # Errors
    /// When the machines cannot be listed.
    pub fn clones_of(&self, id: &str) -> Result<usize, Error> {
        let records = RunDir::all(&self.layout)?;
        let clones = records.iter().filter_map(RunDir::record);
        Ok(clones.filter(|record| record.template.as_deref() == Some(id)).count())
    }

    /// The template `id` if it is on the disk: opened, and kept open from now on. One that is
    /// damaged is removed, so that it is made again.
    pub(crate) async fn open_template(&self, id: &str) -> Result<Option<Template>, Error> {
        let _opening = self.opening.lock().await;
        if let Some(template) = self.opened().get(id) {
            return Ok(Some(template.clone()));
        }
        let directory = self.layout.templates().join(id);
        let opening = tokio::task::spawn_blocking(move || match Found::read(&directory)? {
            Some(found) => found.open().map(Some),
            None => Ok(None),
        });
        match opening.await.expect("reading a template does not panic") {
            Ok(Some(template)) => {
                self.opened().insert(id.to_owned(), template.clone());
                Ok(Some(template))
            }
            Ok(None) => Ok(None),
            Err(error @ Error::TemplateDamaged { .. }) => {
                tracing::warn!(template.id = id, error = %chain(&error), "the template is made again");
                self.remove_files(id)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a template. Clones that live go on; its memory goes with the last of them.
    /// Removing what is not there is success.
    ///
    /// # Errors
    /// When files cannot be removed.
    pub async fn remove_template(&self, id: &str) -> Result<(), Error> {
        if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) || id.is_empty() {
            return Err(Error::Template { id: id.to_owned(), why: "it is no template id".into() });
        }
        let _lock = self.lock_template(id).await?;
        self.opened().remove(id);
        self.remove_files(id)
    }

    pub(crate) fn remove_files(&self, id: &str) -> Result<(), Error> {
        let directory = self.layout.templates().join(id);
        // Out of sight in one step, so that nobody meets half a template.
        let removed = self.layout.templates().join(format!(".removed-{id}"));
        let _ = fs::remove_dir_all(&removed);
        match fs::rename(&directory, &removed) {
            Ok(()) => fs::remove_dir_all(&removed).map_err(Error::io("remove", &removed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("remove", &directory)(error)),
        }
    }

    /// How much memory the templates hold that were opened here, in bytes.
    #[must_use]
    pub fn templates_hold_bytes(&self) -> u64 {
        self.opened().values().map(Template::held_bytes).sum()
    }

    /// Lets go of templates that somebody else has removed since they were opened.
    pub fn let_go_of_removed_templates(&self) {
        let is_there =
            |id: &String| self.layout.templates().join(id).join("template.json").exists();
        self.opened().retain(|id, _| is_there(id));
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<String, Template>> {
        self.opened.lock().expect("no panic while held")
    }

    /// Waits for the lock on everything about the template `id`. By asking again, and not in a
    /// thread: however many wait while a template is made, they hold up nobody else.
    pub(crate) async fn lock_template(&self, id: &str) -> Result<FileLock, Error> {
        loop {
            if let Some(lock) = FileLock::try_exclusive(&self.template_lock(id))? {
                return Ok(lock);
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    /// The lock on everything about the template `id`.
    pub(crate) fn template_lock(&self, id: &str) -> PathBuf {
        self.layout.templates().join(format!("{id}.lock"))
    }
}
