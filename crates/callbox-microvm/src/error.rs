//! Why something with a machine of this host failed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use callbox_link::LinkError;

use crate::net::NetError;
use crate::qmp::QmpError;

/// Every failure of this crate (the image store has its own).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's file system.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was attempted, to be read before the path.
        doing: String,
        /// With what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A name that machines cannot have.
    #[error("machine name {0:?} is not 1 to 40 of a-z, 0-9 and '-'")]
    Name(String),
    /// The sockets of a machine would have paths that the kernel does not take.
    #[error(
        "the data directory {} is {too_long_by} bytes too deep for unix sockets; \
         hint: choose a shorter one", root.display()
    )]
    SocketPath {
        /// The data directory.
        root: PathBuf,
        /// By how much.
        too_long_by: usize,
    },
    /// A program of the host is missing.
    #[error("cannot run {program:?}")]
    Tool {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program of the host said no.
    #[error("{program:?} failed ({status}): {stderr}")]
    ToolFailed {
        /// The program.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// Kernel, agent or QEMU are missing something that machines need.
    #[error("{0}")]
    Unusable(String),
    /// The shape asks for something that a machine cannot be.
    #[error("no machine can have {0}")]
    Shape(String),
    /// The configuration insists on KVM and KVM does not work.
    #[error("kvm was asked for and does not work here: {0}")]
    KvmUnusable(String),
    /// A machine cannot be put into its cage.
    #[error("machines cannot be caged here: {missing}")]
    Cage {
        /// What is missing.
        missing: String,
    },
    /// Something else has this name already.
    #[error("there is a machine named {0:?} already")]
    Exists(String),
    /// Nothing has this name, or it has ended.
    #[error("there is no running machine named {0:?}")]
    NotFound(String),
    /// The machine was destroyed while it was being started.
    #[error("machine {0:?} was destroyed while it started")]
    Destroyed(String),
    /// QEMU ended while the machine was needed.
    #[error("qemu ended while the host waited to {stage}: {said}")]
    Ended {
        /// What was waited for.
        stage: &'static str,
        /// The end of what QEMU and the guest's console said.
        said: String,
    },
    /// A stage took too long.
    #[error("the machine did not {stage} within {after:?}: {said}")]
    Deadline {
        /// What was waited for.
        stage: &'static str,
        /// For how long.
        after: Duration,
        /// The end of what QEMU and the guest's console said.
        said: String,
    },
    /// The conversation with QEMU failed.
    #[error("cannot {stage}")]
    Qmp {
        /// What was attempted.
        stage: &'static str,
        /// The cause.
        #[source]
        source: QmpError,
    },
    /// The conversation with the agent failed.
    #[error("cannot {stage}")]
    Link {
        /// What was attempted.
        stage: &'static str,
        /// The cause.
        #[source]
        source: LinkError,
    },
    /// The machine's network could not be made or removed.
    #[error("cannot give the machine its network")]
    Network(#[from] NetError),
    /// The template's memory could not be saved.
    #[error("qemu could not save the machine's state: {0}")]
    Save(String),
    /// The template is not (any more) what the caller wants to clone.
    #[error("template {id} cannot be cloned: {why}")]
    Template {
        /// The template.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// The template's files are not what was baked.
    #[error("template {id} is damaged: {why}; hint: it is made again at the next start of its bot")]
    TemplateDamaged {
        /// The template.
        id: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// For `map_err` on file system calls: `Error::io("read", path)`.
    pub(crate) fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let (doing, path) = (doing.to_owned(), path.to_path_buf());
        move |source| Error::Io { doing, path, source }
    }

    pub(crate) fn tool(program: &str) -> impl FnOnce(io::Error) -> Error + use<> {
        let program = program.to_owned();
        move |source| Error::Tool { program, source }
    }

    pub(crate) fn tool_failed(program: &str, output: &Output) -> Error {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stderr = stderr.trim();
        let start = stderr.len().saturating_sub(500);
        let start = (start..=stderr.len()).find(|at| stderr.is_char_boundary(*at)).unwrap_or(0);
        Error::ToolFailed {
            program: program.to_owned(),
            status: output.status.to_string(),
            stderr: stderr[start..].to_owned(),
        }
    }

    /// Whether the same boot may work at a second try: hangs and dying emulators, but nothing
    /// that the bot or the configuration caused.
    #[must_use]
    pub fn worth_a_retry(&self) -> bool {
        match self {
            Error::Ended { .. } | Error::Deadline { .. } | Error::Qmp { .. } => true,
            Error::Link { source, .. } => {
                matches!(source, LinkError::Closed | LinkError::Hello(_))
            }
            _ => false,
        }
    }
}

/// An error with its causes, for places that end the chain.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
