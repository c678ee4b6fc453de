//! What is written down about an image.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::io;
use super::facts::Facts;
use super::{ImageError, erofs};

/// File name of the manifest beside the root file system.
pub(super) const MANIFEST: &str = "image.json";
/// Raised when the manifest or the build changes in a way that asks for a new build.
pub(super) const FORMAT: u32 = 1;

/// A kept image.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its name in the store.
    pub name: String,
    /// sha256 of the root file system, as lower-case hex.
    pub digest: String,
    /// The EROFS file.
    pub rootfs: PathBuf,
    /// How the bot in it is started, unless the bot's configuration says otherwise.
    pub config: ImageConfig,
    /// Where it comes from.
    pub source: Source,
    /// When it was made, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Size of the EROFS file in bytes.
    pub size: u64,
    /// What is inside, counted when it was made.
    pub facts: Facts,
    /// Hash over everything that it was built from; empty for imported images.
    pub(super) inputs: String,
}

impl Image {
    /// Its version, 64 hex digits: what is in it and how its bot is started. Two images of one
    /// version make the same machines, wherever and whenever they were made.
    #[must_use]
    pub fn version(&self) -> String {
        version(&self.digest, &self.config)
    }
}

fn version(digest: &str, config: &ImageConfig) -> String {
    let text = serde_json::to_vec(&(digest, config)).expect("plain values are always json");
    hex::encode(Sha256::digest(text))
}

/// How the bot in an image is started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Program and arguments. May be empty where the image does not say.
    pub argv: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Source {
    /// Built from a recipe.
    Recipe {
        /// File name of the recipe, without its folder.
        recipe: String,
        /// Debian suite.
        suite: String,
        /// Lines of the Python requirements that name no exact version.
        unpinned: Vec<String>,
    },
    /// Imported from a container image.
    Container {
        /// File name of the archive, without its folder.
        archive: String,
        /// Names that the image had there, for example `mybot:latest`.
        references: Vec<String>,
        /// Digest of the container image's configuration (its image id), `sha256:…`.
        image_id: String,
    },
}

/// The manifest as it is on disk.
#[derive(Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u32,
    pub name: String,
    pub digest: String,
    pub size: u64,
    pub created_at_ms: u64,
    pub inputs: String,
    pub source: Source,
    pub config: ImageConfig,
    pub facts: Facts,
}

impl Manifest {
    /// Reads the manifest in `dir`, which holds an image called `name`.
    pub fn read(dir: &Path, name: &str) -> Result<Manifest, ImageError> {
        let path = dir.join(MANIFEST);
        let text = fs::read(&path).map_err(io("read", &path))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| ImageError::Damaged {
                name: name.into(),
                reason: format!("{} cannot be read: {error}", path.display()),
            })?;
        if manifest.format != FORMAT {
            return Err(ImageError::Damaged {
                name: name.into(),
                reason: format!(
                    "its manifest has format {}, this version reads {FORMAT}",
                    manifest.format
                ),
            });
        }
        Ok(manifest)
    }

    /// Writes the manifest into `dir`, replacing one that is there in one step.
    pub fn write(&self, dir: &Path) -> Result<(), ImageError> {
        let path = dir.join(MANIFEST);
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(io("write into", dir))?;
        serde_json::to_writer_pretty(&mut file, self)
            .map_err(std::io::Error::from)
            .and_then(|()| file.as_file().sync_all())
            .map_err(io("write", &path))?;
        // Anyone who may read the data directory may read what is in an image.
        rustix::fs::fchmod(file.as_file(), rustix::fs::Mode::from_raw_mode(0o644))
            .map_err(|error| io("set the mode of", &path)(error.into()))?;
        file.persist(&path).map_err(|error| io("write", &path)(error.error))?;
        Ok(())
    }

    /// See [`Image::version`].
    pub fn version(&self) -> String {
        version(&self.digest, &self.config)
    }

    /// The image that this manifest in `dir` describes.
    pub fn into_image(self, dir: &Path) -> Image {
        Image {
            name: self.name,
            digest: self.digest,
            rootfs: dir.join(erofs::ROOTFS),
            config: self.config,
            source: self.source,
            created_at_ms: self.created_at_ms,
            size: self.size,
            facts: self.facts,
            inputs: self.inputs,
        }
    }
}
