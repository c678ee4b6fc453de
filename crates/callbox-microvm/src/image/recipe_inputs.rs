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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TEXT: &str = "name = \"a\"\n[debian]\nsuite = \"b\"\n[python]\nrequirements_file = \"req.txt\"\n\
                        [[files]]\nfrom = \"app\"\nto = \"/app\"\n";

    #[test]
    fn exactly_what_matters_changes_the_hash() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("app")).unwrap();
        fs::write(at("app/bot.py"), "1").unwrap();
        fs::write(at("req.txt"), "x==1").unwrap();
        fs::write(at("r.toml"), TEXT).unwrap();
        let hashed = |sources: &str| hash(&Recipe::read(&at("r.toml")).unwrap(), sources).unwrap();
        let mut last = hashed("s");

        // Comments, caches and times mean nothing.
        fs::write(at("r.toml"), format!("# why\n{TEXT}")).unwrap();
        fs::write(at("req.txt"), "# pinned\nx==1\n").unwrap();
        fs::create_dir(at("app/__pycache__")).unwrap();
        fs::write(at("app/__pycache__/bot.pyc"), "").unwrap();
        fs::write(at("app/bot.py"), "1").unwrap();
        assert_eq!(hashed("s"), last);

        let mut changed = |what: &str, sources: &str| {
            let now = hashed(sources);
            assert_ne!(now, last, "{what}");
            last = now;
        };
        changed("another archive", "t");
        fs::write(at("app/bot.py"), "2").unwrap();
        changed("content", "t");
        fs::set_permissions(at("app/bot.py"), fs::Permissions::from_mode(0o755)).unwrap();
        changed("executable", "t");
        fs::rename(at("app/bot.py"), at("app/bot2.py")).unwrap();
        changed("name", "t");
        fs::write(at("req.txt"), "x==2").unwrap();
        changed("requirement", "t");
        fs::write(at("r.toml"), format!("{TEXT}[config]\ncwd = \"/app\"")).unwrap();
        changed("recipe", "t");
    }
}
