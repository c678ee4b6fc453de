//! Building an image from its recipe.

use std::fs;
use std::path::{Path, PathBuf};

use globset::GlobSet;

use super::erofs::Times;
use super::error::io;
use super::python::Python;
use super::recipe::{CopyFiles, DIST_PACKAGES, pruner};
use super::scratch::Scratch;
use super::store::NewImage;
use super::{
    Image, ImageConfig, ImageError, ImageStore, Recipe, Source, apt, debian, erofs, facts, pip,
    python, recipe_inputs, tree, users,
};
use crate::Progress;

/// How to build.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildOptions {
    /// Build even if the kept image is current, for newer Debian packages and newer versions
    /// of unpinned requirements.
    pub force: bool,
}

/// What came of a build.
#[derive(Clone, Debug)]
pub struct Built {
    /// The current image.
    pub image: Image,
    /// It was there already and nothing it is built from has changed.
    pub kept: bool,
}

impl ImageStore {
    /// Makes the image of a recipe current: builds it, unless the kept one was built from the
    /// same inputs. Takes minutes; a second process that wants the same image waits for the
    /// first and then finds it kept. Needs root when it builds.
    pub fn build(
        &self,
        recipe: &Recipe,
        options: BuildOptions,
        progress: &dyn Progress,
    ) -> Result<Built, ImageError> {
        let _lock = self.lock(recipe.name())?;
        progress.stage("comparing with the kept image");
        let suite = apt::suite(&recipe.said.debian.suite)?;
        let sources = apt::sources(&suite)?;
        let inputs = recipe_inputs::hash(recipe, &sources)?;
        if !options.force
            && let Some(image) = self.kept(recipe.name(), &inputs)
        {
            return Ok(Built { image, kept: true });
        }
        need_root("building an image")?;
        let scratch = self.scratch()?;
        let root = fill(recipe, &suite, &sources, &scratch, progress)?;
        progress.stage("counting what is inside");
        let facts = facts::collect(&root)?;
        let config = image_config(recipe, &root)?;
        progress.stage("packing the root file system");
        let staged = scratch.directory("image")?;
        tree::set_mode(&staged, 0o755)?;
        erofs::pack(&root, &staged, Times::Fixed)?;
        progress.stage("keeping the image");
        let source = Source::Recipe {
            recipe: file_name(&recipe.path),
            suite,
            unpinned: unpinned(&recipe.requirements()?),
        };
        let image = self.keep(
            &staged,
            NewImage { name: recipe.name().into(), inputs, source, config, facts },
        )?;
        Ok(Built { image, kept: false })
    }

    /// The kept image, if it was built from these inputs and is whole at a glance.
    fn kept(&self, name: &str, inputs: &str) -> Option<Image> {
        let image = self.get(name).ok()?;
        let whole = fs::metadata(&image.rootfs).is_ok_and(|meta| meta.len() == image.size);
        (image.inputs == inputs && whole).then_some(image)
    }
}

/// Fills a root directory with everything that the recipe says.
fn fill(
    recipe: &Recipe,
    suite: &str,
    sources: &str,
    scratch: &Scratch,
    progress: &dyn Progress,
) -> Result<PathBuf, ImageError> {
    let said = &recipe.said;
    progress.stage("installing Debian packages");
    debian::install(&said.debian.packages, suite, sources, scratch)?;
    let root = scratch.path().join("root");
    users::add_bot(&root)?;
    let python = Python::of(&root);
    progress.stage("installing Python packages");
    pip::install(recipe, &root, scratch.path())?;
    progress.stage("copying files");
    let mut copied = Vec::new();
    for files in &said.files {
        copied.push(copy(recipe, files, &root, python.as_ref())?);
    }
    progress.stage("removing what no bot needs");
    if let Some(python) = &python {
        python::strip_tests(&root, python)?;
    }
    let globs = pruner(&said.prune)
        .map_err(|reason| ImageError::Recipe { path: recipe.path.clone(), reason })?;
    prune(&root, &globs)?;
    if let Some(python) = &python {
        progress.stage("compiling Python code");
        copied.extend(python.code_dirs());
        python::compile(&root, &copied)?;
    }
    Ok(root)
}

/// Copies one `[[files]]` entry; returns where it went, relative to the root.
fn copy(
    recipe: &Recipe,
    files: &CopyFiles,
    root: &Path,
    python: Option<&Python>,
) -> Result<PathBuf, ImageError> {
    let to = match (files.to.strip_prefix(DIST_PACKAGES), python) {
        (None, _) => PathBuf::from(files.to.trim_start_matches('/')),
        (Some(rest), Some(python)) => python.dist_packages().join(rest.trim_start_matches('/')),
        (Some(_), None) => {
            return Err(ImageError::Unfit {
                reason: format!(
                    "the recipe copies to {:?}, but its [debian] packages bring no python3",
                    files.to
                ),
            });
        }
    };
    let target = root.join(&to);
    stay_inside(root, &target)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(io("create", parent))?;
    }
    if target.is_symlink() {
        tree::remove(&target)?;
    }
    tree::copy(&recipe.resolve(&files.from), &target)?;
    Ok(to)
}

/// Refuses a target that a link inside the image would turn into a file of this host.
fn stay_inside(root: &Path, target: &Path) -> Result<(), ImageError> {
    let parent = target.ancestors().skip(1).find(|ancestor| ancestor.exists()).unwrap_or(root);
    let real = parent.canonicalize().map_err(io("find", parent))?;
    let root = root.canonicalize().map_err(io("find", root))?;
    if real.starts_with(&root) {
        return Ok(());
    }
    Err(ImageError::Unfit { reason: format!("{target:?} leads out of the image through a link") })
}

/// Removes what the globs match, with everything below it.
fn prune(root: &Path, globs: &GlobSet) -> Result<(), ImageError> {
    if globs.is_empty() {
        return Ok(());
    }
    for (path, _) in tree::walk(root)? {
        if globs.is_match(&path) {
            tree::remove(&root.join(path))?;
        }
    }
    Ok(())
}

fn image_config(recipe: &Recipe, root: &Path) -> Result<ImageConfig, ImageError> {
    let said = &recipe.said.config;
    let (uid, gid) = users::resolve(root, &said.user)?;
    Ok(ImageConfig {
        argv: said.argv.clone(),
        env: said.env.clone(),
        cwd: said.cwd.clone(),
        uid,
        gid,
    })
}

/// Requirements that leave the version open.
fn unpinned(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .filter(|line| !line.starts_with('-'))
        .filter(|line| {
            let requirement = line.split(';').next().unwrap_or_default();
            let pinned = requirement.contains("==") && !requirement.contains('*');
            !pinned && !requirement.contains(" @ ")
        })
        .cloned()
        .collect()
}

/// Refuses early what would fail late: the owners of files can only be kept by root.
pub(super) fn need_root(doing: &'static str) -> Result<(), ImageError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(ImageError::NeedsRoot { doing }) }
}

/// The last part of a path, for people.
pub(super) fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn open_versions_are_found() {
        let lines = [
            "a==1.0",
            "b>=2",
            "c",
            "d==1.*",
            "e[x]==2 ; python_version < \"3.12\"",
            "--hash=sha256:0",
            "f @ file:///f.whl",
        ];
        assert_eq!(unpinned(&lines.map(String::from)), ["b>=2", "c", "d==1.*"]);
    }

    #[test]
    fn pruning_takes_whole_directories_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        for file in ["a/tests/x.py", "a/keep.py", "b/c/deep.a", "pipecat/p.py", "pip/q.py"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let globs = ["a/tests", "**/*.a", "/pip"].map(String::from);
        prune(root.path(), &pruner(&globs).unwrap()).unwrap();
        let left: Vec<_> = tree::walk(root.path())
            .unwrap()
            .into_iter()
            .filter(|(_, meta)| meta.is_file())
            .map(|(path, _)| path)
            .collect();
        assert_eq!(left, [Path::new("a/keep.py"), Path::new("pipecat/p.py")]);
    }
}
