//! Templates: machines that were prepared, frozen and saved, for others to start from.
//!
//! ```text
//! <data_dir>/templates/<id>/      id = hash of the manifest
//!     mem                         the guest's memory; clones map it copy-on-write
//!     state                       QEMU's devices, 50-70 KB
//!     template.json               the manifest and how it went
//! <data_dir>/templates/<id>.lock  exclusive: baking or removing; shared: about to clone
//! ```
//!
//! A bake boots a machine whose memory is the file `mem`, prepares and freezes it, and has QEMU
//! save all but the memory (`x-ignore-shared`). It works in `.baking-<id>` and a run directory of
//! its own; one rename makes the template. A bake that dies leaves both behind; the next one, or
//! the next [`Host::open`](crate::Host::open), removes them.
//!
//! **The memory file must never change while clones live**: pages they have not written yet are
//! still read from it. So a template is never written again, only removed, and only when no clone
//! lives. Whatever would make a clone differ from what was frozen (another QEMU, kernel, agent,
//! image, shape, bot) makes another manifest, and so another template.

mod bake;
mod manifest;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::MachineShape;
use crate::error::Error;
use crate::host::Host;
use crate::image::Image;
use crate::lock::FileLock;
use crate::run::RunDir;
use callbox_protocol::agent::Prepare;

pub use manifest::Manifest;

/// A template that can be cloned.
#[derive(Clone, Debug)]
pub struct Template {
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

    pub(crate) fn memory(&self) -> PathBuf {
        self.directory.join("mem")
    }

    pub(crate) fn open_state(&self) -> Result<File, Error> {
        let path = self.directory.join("state");
        File::open(&path).map_err(Error::io("open the template's state", &path))
    }

    /// Refuses a template of something else.
    pub(crate) fn check(&self, wanted: &Manifest) -> Result<(), Error> {
        match self.facts.manifest.difference(wanted) {
            None => Ok(()),
            Some(why) => Err(Error::Template { id: self.id.clone(), why }),
        }
    }

    /// Refuses a template that was removed since it was looked up.
    pub(crate) fn check_present(&self) -> Result<(), Error> {
        if self.directory.join("template.json").exists() {
            Ok(())
        } else {
            Err(Error::Template { id: self.id.clone(), why: "it was removed".to_owned() })
        }
    }

    /// Reads the template in `directory`; `None` if there is none, or none that can be trusted.
    fn read(directory: &Path) -> Result<Option<Template>, Error> {
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
        Ok((facts.manifest.id() == id).then(|| Template {
            id,
            directory: directory.to_path_buf(),
            facts: Arc::new(facts),
        }))
    }
}

impl Host {
    /// The template for this shape, image and bot, if there is one already.
    ///
    /// # Errors
    /// When the templates cannot be read.
    pub fn find_template(
        &self,
        shape: &MachineShape,
        image: &Image,
        prepare: &Prepare,
    ) -> Result<Option<Template>, Error> {
        let id = self.manifest(shape, image, prepare).id();
        Template::read(&self.layout.templates().join(id))
    }

    /// All templates of this data directory, also those that the current QEMU, kernel or agent
    /// can no longer clone.
    ///
    /// # Errors
    /// When the templates cannot be read.
    pub fn templates(&self) -> Result<Vec<Template>, Error> {
        let root = self.layout.templates();
        let mut templates = Vec::new();
        for entry in fs::read_dir(&root).map_err(Error::io("list", &root))? {
            let path = entry.map_err(Error::io("list", &root))?.path();
            if path.is_dir() {
                templates.extend(Template::read(&path)?);
            }
        }
        templates.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(templates)
    }

    /// Removes a template, unless clones of it live. Removing what is not there is success.
    ///
    /// # Errors
    /// [`Error::TemplateInUse`], or when files cannot be removed.
    pub async fn remove_template(&self, id: &str) -> Result<(), Error> {
        if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) || id.is_empty() {
            return Err(Error::Template { id: id.to_owned(), why: "it is no template id".into() });
        }
        let path = self.template_lock(id);
        let lock = tokio::task::spawn_blocking(move || FileLock::exclusive(&path));
        let _lock = lock.await.expect("locking a file does not panic")?;
        let clones = RunDir::all(&self.layout)?
            .iter()
            .filter_map(RunDir::record)
            .filter(|record| record.template.as_deref() == Some(id))
            .count();
        if clones > 0 {
            return Err(Error::TemplateInUse { id: id.to_owned(), count: clones });
        }
        let directory = self.layout.templates().join(id);
        // Out of sight in one step, so that nobody meets half a template.
        let removed = self.layout.templates().join(format!(".removed-{id}"));
        match fs::rename(&directory, &removed) {
            Ok(()) => fs::remove_dir_all(&removed).map_err(Error::io("remove", &removed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("remove", &directory)(error)),
        }
    }

    /// Removes the templates that this host can no longer clone, as QEMU, the kernel, the agent
    /// or the processor changed since, unless clones of them still live. Returns their ids.
    ///
    /// Not done by itself: during an upgrade, an older dispatcher may still use them.
    ///
    /// # Errors
    /// When the templates cannot be read or removed.
    pub async fn remove_stale_templates(&self) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        for template in self.templates()? {
            if self.can_clone(&template.facts.manifest) {
                continue;
            }
            match self.remove_template(&template.id).await {
                Ok(()) => removed.push(template.id),
                Err(Error::TemplateInUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// The lock on everything about the template `id`.
    pub(crate) fn template_lock(&self, id: &str) -> PathBuf {
        self.layout.templates().join(format!("{id}.lock"))
    }
}
