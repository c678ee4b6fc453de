//! The recipe file of an image.
//!
//! ```toml
//! name = "parrot"
//! # Removed before packing: globs relative to the image's root.
//! prune = ["usr/share/perl"]
//!
//! [debian]
//! suite = "bookworm"                  # must be among this host's own apt sources; "host" is
//!                                     # the suite that this host runs
//! packages = ["python3", "espeak-ng"] # on top of mmdebstrap's "minbase"
//!
//! [python]                            # wheels only; the host's pip and its configuration
//! requirements = ["pipecat-ai[websocket]==1.14.0"]
//! requirements_file = "../bot/requirements.txt"
//! no_deps = true                      # the requirements are complete: take nothing else
//! build_wheels = ["docopt==0.6.2"]    # packages that come as source only, without compiled
//!                                     # parts: their own code builds them, on this host
//!
//! [[files]]                           # `from` is relative to the folder of the recipe
//! from = "../bots/parrot/bot.py"      # a file or a directory
//! to = "/app/bot.py"                  # `{dist-packages}` stands for the Python packages
//!
//! [config]
//! argv = ["python3", "/app/bot.py"]
//! env = { PYTHONUNBUFFERED = "1" }
//! cwd = "/app"
//! user = "bot"                        # the default: uid 1000, made by the build
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ImageError;
use super::error::io;
use super::store::check_name;

/// Stands in `to` for the directory of the Python packages.
pub(super) const DIST_PACKAGES: &str = "{dist-packages}";

/// A recipe that was read and found to be sound.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The file that it was read from.
    pub path: PathBuf,
    /// What it says.
    pub(super) said: Said,
}

/// The keys of a recipe. Unknown ones are refused.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    pub name: String,
    #[serde(default)]
    pub prune: Vec<String>,
    pub debian: Debian,
    #[serde(default)]
    pub python: Python,
    #[serde(default)]
    pub files: Vec<CopyFiles>,
    #[serde(default)]
    pub config: Config,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Debian {
    pub suite: String,
    #[serde(default)]
    pub packages: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Python {
    #[serde(default)]
    pub requirements: Vec<String>,
    pub requirements_file: Option<PathBuf>,
    #[serde(default)]
    pub no_deps: bool,
    #[serde(default)]
    pub build_wheels: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CopyFiles {
    pub from: PathBuf,
    pub to: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Config {
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: String,
    pub user: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            argv: Vec::new(),
            env: BTreeMap::new(),
            cwd: "/".into(),
            user: super::users::BOT.into(),
        }
    }
}

impl Recipe {
    /// Reads and checks a recipe file.
    pub fn read(path: &Path) -> Result<Recipe, ImageError> {
        let text = fs::read_to_string(path).map_err(io("read", path))?;
        let refuse = |reason: String| ImageError::Recipe { path: path.into(), reason };
        let said: Said =
            toml::from_str(&text).map_err(|error| refuse(error.to_string().trim_end().into()))?;
        check(&said).map_err(refuse)?;
        Ok(Recipe { path: path.into(), said })
    }

    /// Name of the image that the recipe makes.
    pub fn name(&self) -> &str {
        &self.said.name
    }

    /// A path of the recipe, which is relative to the recipe's folder.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        folder.join(path)
    }

    /// The lines of the requirements, from the recipe and from its requirements file.
    pub(super) fn requirements(&self) -> Result<Vec<String>, ImageError> {
        let mut lines = self.said.python.requirements.clone();
        if let Some(file) = &self.said.python.requirements_file {
            let file = self.resolve(file);
            let text = fs::read_to_string(&file).map_err(io("read", &file))?;
            lines.extend(text.lines().map(str::to_owned));
        }
        Ok(lines
            .iter()
            .map(|line| line.split(" #").next().unwrap_or_default().trim())
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::to_owned)
            .collect())
    }
}

fn check(said: &Said) -> Result<(), String> {
    check_name(&said.name).map_err(|error| format!("key `name`: {error}"))?;
    let plain = |text: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.:_".contains(&byte))
    };
    if !plain(&said.debian.suite) {
        return Err(format!("key `debian.suite`: {:?} is not a suite", said.debian.suite));
    }
    if let Some(package) = said.debian.packages.iter().find(|package| !plain(package)) {
        return Err(format!("key `debian.packages`: {package:?} is not a package name"));
    }
    for files in &said.files {
        let inside = files.to.strip_prefix(DIST_PACKAGES).unwrap_or(&files.to);
        if !absolute_and_plain(inside) {
            return Err(format!(
                "key `files.to`: {:?} must be an absolute path without `..`, or start with {DIST_PACKAGES}",
                files.to
            ));
        }
    }
    if !absolute_and_plain(&said.config.cwd) {
        return Err(format!("key `config.cwd`: {:?} must be an absolute path", said.config.cwd));
    }
    let bad_name = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = said.config.env.keys().find(bad_name) {
        return Err(format!("key `config.env`: {name:?} is not a variable name"));
    }
    pruner(&said.prune).map(drop)
}

/// The globs of `prune`, ready to be matched. `*` stays within a directory, `**` does not.
pub(super) fn pruner(globs: &[String]) -> Result<globset::GlobSet, String> {
    let mut set = globset::GlobSetBuilder::new();
    for text in globs {
        let glob = globset::GlobBuilder::new(text.trim_start_matches('/'))
            .literal_separator(true)
            .build()
            .map_err(|error| format!("key `prune`: {error}"))?;
        set.add(glob);
    }
    set.build().map_err(|error| format!("key `prune`: {error}"))
}

fn absolute_and_plain(path: &str) -> bool {
    path.starts_with('/')
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Recipe, ImageError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.toml");
        fs::write(&path, text).unwrap();
        Recipe::read(&path)
    }

    #[test]
    fn a_small_recipe_has_sound_defaults() {
        let recipe = read("name = \"a\"\n[debian]\nsuite = \"bookworm\"").unwrap();
        assert_eq!(recipe.name(), "a");
        assert_eq!(
            (recipe.said.config.user.as_str(), recipe.said.config.cwd.as_str()),
            ("bot", "/")
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        const HEAD: &str = "name = \"a\"\n[debian]\nsuite = \"bookworm\"\n";
        let cases = [
            ("nmae = \"a\"\n[debian]\nsuite = \"b\"".to_owned(), "nmae"),
            (format!("{HEAD}pakages = []"), "pakages"),
            (format!("{HEAD}[python]\nrequirments = []"), "requirments"),
            (format!("{HEAD}[config]\nuid = 1"), "uid"),
            (format!("{HEAD}[[files]]\nfrom = \"a\"\nto = \"/b\"\nmode = 1"), "mode"),
            ("[debian]\nsuite = \"b\"".to_owned(), "name"),
            ("name = \"a\"".to_owned(), "debian"),
            ("name = \"A b\"\n[debian]\nsuite = \"b\"".to_owned(), "A b"),
            ("name = \"a\"\n[debian]\nsuite = \"--x\"".to_owned(), "debian.suite"),
            (format!("{HEAD}packages = [\"-o\"]"), "debian.packages"),
            (format!("{HEAD}packages = [\"a,b\"]"), "a,b"),
            (format!("{HEAD}[[files]]\nfrom = \"a\"\nto = \"b\""), "files.to"),
            (format!("{HEAD}[[files]]\nfrom = \"a\"\nto = \"/b/../c\""), "files.to"),
            (format!("{HEAD}[config]\ncwd = \"app\""), "config.cwd"),
            (format!("{HEAD}[config]\nenv = {{ \"A=B\" = \"\" }}"), "config.env"),
            (format!("prune = [\"a[\"]\n{HEAD}"), "prune"),
        ];
        for (text, word) in cases {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}\n-> {error}");
        }
    }

    #[test]
    fn requirements_come_from_both_places_without_comments() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("req.txt"), "# all\nb==2  # why\n\nc==3\n").unwrap();
        let path = dir.path().join("r.toml");
        let text = "name = \"a\"\n[debian]\nsuite = \"b\"\n[python]\nrequirements = [\"a==1\"]\nrequirements_file = \"req.txt\"";
        fs::write(&path, text).unwrap();
        let lines = Recipe::read(&path).unwrap().requirements().unwrap();
        assert_eq!(lines, ["a==1", "b==2", "c==3"]);
    }
}
