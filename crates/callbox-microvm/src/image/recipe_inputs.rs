//! One hash over everything that an image is built from, to see whether a kept one is current.
//!
//! What the outside holds is not asked: a newer version of a Debian package or of an unpinned
//! requirement does not cause a new build (`BuildOptions::force` does). What this machine
//! holds is: the recipe's meaning (not its comments), every copied file, the requirements,
//! and which archives the host would use.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::manifest::FORMAT;
use super::tree::{CopiedKind, copy_list};
use super::{ImageError, Recipe, digest};

/// The hash as lower-case hex. `apt_sources` is the text that the build would hand to apt.
pub(super) fn hash(recipe: &Recipe, apt_sources: &str) -> Result<String, ImageError> {
    let mut hash = Fields(Sha256::new());
    hash.field(b"callbox image");
    hash.field(&FORMAT.to_le_bytes());
    hash.field(std::env::consts::ARCH.as_bytes());
    let meaning = serde_json::to_vec(&recipe.said).map_err(|error| ImageError::Recipe {
        path: recipe.path.clone(),
        reason: error.to_string(),
    })?;
    hash.field(&meaning);
    hash.field(apt_sources.as_bytes());
    for line in recipe.requirements()? {
        hash.field(line.as_bytes());
    }
    for files in &recipe.said.files {
        hash.field(files.to.as_bytes());
        hash.tree(&recipe.resolve(&files.from))?;
    }
    Ok(hex::encode(hash.0.finalize()))
}

/// Hashes fields with their lengths, so that moving a byte from one to the next is a change.
struct Fields(Sha256);

impl Fields {
    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn tree(&mut self, from: &Path) -> Result<(), ImageError> {
        for item in copy_list(from)? {
            self.field(item.path.as_os_str().as_bytes());
            match item.kind {
                CopiedKind::Directory => self.field(b"directory"),
                CopiedKind::Link(goal) => {
                    self.field(b"link");
                    self.field(goal.as_os_str().as_bytes());
                }
                CopiedKind::File { executable } => {
                    self.field(if executable { b"program" } else { b"file" });
                    let path = match item.path.as_os_str().is_empty() {
                        true => from.to_owned(),
                        false => from.join(&item.path),
                    };
                    self.field(digest::of_file(&path)?.0.as_bytes());
                }
            }
        }
        Ok(())
    }
}
