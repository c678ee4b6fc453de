//! What can go wrong with an image.

use std::io;
use std::path::{Path, PathBuf};

/// An operation on images failed. Whatever it was, nothing half made is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The store has no current image of that name.
    #[error("there is no image \"{name}\"")]
    NotFound {
        /// The name that was asked for.
        name: String,
    },
    /// The store has the image, and not in this version.
    #[error("image \"{name}\" is not kept in version {}", .version.get(..12).unwrap_or(.version))]
    NoVersion {
        /// The name that was asked for.
        name: String,
        /// The version that was asked for.
        version: String,
    },
    /// The name cannot be used.
    #[error(
        "\"{name}\" is not an image name: use 1 to 40 of a-z, 0-9 and '-', starting with a letter or digit"
    )]
    BadName {
        /// The name that was given.
        name: String,
    },
    /// A recipe cannot be understood.
    #[error("recipe {path:?}: {reason}")]
    Recipe {
        /// The recipe file.
        path: PathBuf,
        /// What is wrong with it, naming the key.
        reason: String,
    },
    /// Building and importing keep the owners of files, which only root may do.
    #[error("{doing} needs root, because the files of an image have owners of their own")]
    NeedsRoot {
        /// What was attempted.
        doing: &'static str,
    },
    /// A program of the host that the build uses is not there.
    #[error("\"{program}\" was not found on this host")]
    MissingProgram {
        /// Name of the program.
        program: String,
        /// Debian package that brings it.
        package: &'static str,
    },
    /// A program of the host failed.
    #[error("{doing}: {program} {outcome}{}", indented(.tail))]
    Program {
        /// What was attempted.
        doing: String,
        /// Name of the program.
        program: String,
        /// How it ended.
        outcome: String,
        /// The last lines that it wrote.
        tail: Vec<String>,
    },
    /// The host's apt configuration has nothing for the recipe's suite.
    #[error("no apt source of this host offers suite \"{suite}\" with component main (it offers: {})", known.join(", "))]
    NoAptSource {
        /// Suite of the recipe.
        suite: String,
        /// Suites that were found.
        known: Vec<String>,
    },
    /// No Python of the host fits the one in the image.
    #[error("no python{version} with pip was found on this host (tried {})", tried.join(", "))]
    NoPip {
        /// Version of the image's Python, for example `3.11`.
        version: String,
        /// Programs that were tried, with what came of it.
        tried: Vec<String>,
    },
    /// The recipe asks for something that the image turned out not to have.
    #[error("{reason}")]
    Unfit {
        /// What is missing.
        reason: String,
    },
    /// A container image is damaged, or not one at all.
    #[error("container image {archive:?}: {reason}")]
    Archive {
        /// The archive that was read.
        archive: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The cause, where there is one.
        #[source]
        source: Option<io::Error>,
    },
    /// A container image is for other machines.
    #[error("container image {archive:?} is for {found}, this host needs {wanted}")]
    Platform {
        /// The archive that was read.
        archive: PathBuf,
        /// Platforms that it has.
        found: String,
        /// The one that is needed.
        wanted: String,
    },
    /// A kept image is not what its manifest says.
    #[error("image \"{name}\" is damaged: {reason}")]
    Damaged {
        /// Name of the image.
        name: String,
        /// What differs.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {path:?}")]
    Io {
        /// What was attempted, in the infinitive.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// What the reader can do about it, where something can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { name } => Some(format!(
                "build it with `callbox image build images/{name}.toml` or import one with `callbox image build ARCHIVE --name {name}`"
            )),
            Self::NeedsRoot { .. } => Some("run it with sudo".into()),
            Self::MissingProgram { package, .. } => {
                Some(format!("install it with `apt-get install {package}`"))
            }
            Self::NoAptSource { .. } => Some(
                "use a suite of this host in the recipe's [debian] table, or add a source to /etc/apt".into(),
            ),
            Self::NoPip { version, .. } => Some(format!(
                "install it with `apt-get install python3-pip`, or put a python{version} that has pip on PATH"
            )),
            Self::Platform { wanted, .. } => {
                Some(format!("pull or build it again with `--platform {wanted}`"))
            }
            Self::Damaged { .. } => Some("build or import the image again".into()),
            _ => None,
        }
    }
}

/// Adds what was attempted, on which file, to an I/O error.
pub(super) fn io(
    doing: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.as_ref().to_owned();
    move |source| ImageError::Io { doing, path, source }
}

fn indented(tail: &[String]) -> String {
    tail.iter().map(|line| format!("\n  | {line}")).collect()
}
