//! How a command fails, and what its exit code is.

use std::path::PathBuf;
use std::process::ExitCode;

use callbox_protocol::api::EndReason;
use callbox_server::owner::OwnerError;

use crate::api_client::ApiError;
use crate::line::LineError;
use crate::speech::SpeechError;
use crate::terminal::{self, Look, printable};

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The dispatcher could not be asked, or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The media websocket could not be opened or broke.
    #[error(transparent)]
    Line(#[from] LineError),
    /// What shall be said cannot be said.
    #[error(transparent)]
    Speech(#[from] SpeechError),
    /// A value that clap could not check is not usable.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("cannot {doing} {path:?}: {source}")]
    File {
        /// `read` | `write`
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// What was heard cannot be written.
    #[error("cannot write {path:?}: {source}")]
    Wav {
        /// Which file.
        path: PathBuf,
        /// What the encoder says.
        source: hound::Error,
    },
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] std::io::Error),
    /// The session went through, but nothing was heard.
    #[error("no audio came back: {detail}")]
    NoAudio {
        /// Which session.
        session_id: String,
        /// What was heard instead.
        detail: String,
    },
    /// The session ended because something did not work.
    #[error("session {session_id} failed: {}: {}", .reason.code, .reason.detail)]
    SessionFailed {
        /// Which session.
        session_id: String,
        /// What the dispatcher says.
        reason: EndReason,
    },
    /// Runs of a benchmark failed; the reasons are in its report.
    #[error("{failed} of {runs} starts failed")]
    BenchFailed {
        /// How many failed.
        failed: usize,
        /// Of how many.
        runs: usize,
    },
    /// Something took longer than the user was willing to wait.
    #[error("{what} after {} s", .limit.as_secs())]
    TooSlow {
        /// What was still missing.
        what: String,
        /// How long was waited.
        limit: std::time::Duration,
    },
    /// The configuration cannot be used.
    #[error("the configuration cannot be used: {0}")]
    Config(String),
    /// The dispatcher cannot serve, or its store cannot be used.
    #[error("{0}")]
    Serve(String),
    /// Another dispatcher has the data directory.
    #[error("another dispatcher uses the data directory {0:?}")]
    Busy(PathBuf),
    /// The store does not go with the data directory.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The dispatcher would be open to everybody.
    #[error("{0}")]
    Open(String),
    /// Machines cannot be run on this host.
    #[error("cannot run machines on this host: {0}")]
    Host(String),
    /// The address is taken, or not ours.
    #[error("cannot serve on {address}: {source}")]
    Listen {
        /// Which address.
        address: std::net::SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// An image cannot be made or read.
    #[error("{text}")]
    Image {
        /// What went wrong.
        text: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The doctor found something that keeps machines from running.
    #[error("machines cannot run here as it is")]
    Doctor,
    /// Somebody else ended what was waited for.
    #[error("{0}")]
    Overtaken(String),
    /// Another dispatcher answers than the one that was asked, so nobody says how that one is.
    #[error(
        "the dispatcher {asked} was asked, and now another one answers ({answers}); how far the \
         first one is, is not known"
    )]
    OtherReplica {
        /// Id of the first.
        asked: String,
        /// Id of the other.
        answers: String,
    },
    /// A version of a bot could not be prepared.
    #[error("bot {bot:?} was not rolled out, and all is as it was: {why}")]
    RolloutFailed {
        /// Which bot.
        bot: String,
        /// What the dispatcher says.
        why: String,
    },
    /// Ctrl-C, by who only watched.
    #[error("interrupted; {0}")]
    Left(String),
    /// Ctrl-C.
    #[error("interrupted; what was started is being ended")]
    Interrupted,
}

impl CliError {
    /// The documented exit code.
    pub fn code(&self) -> u8 {
        match self {
            CliError::Usage(_) | CliError::Speech(_) | CliError::Config(_) => 2,
            CliError::Api(error) if error.is_usage() => 2,
            CliError::NoAudio { .. } => 3,
            CliError::SessionFailed { .. } | CliError::BenchFailed { .. } => 4,
            CliError::Interrupted | CliError::Left(_) => 130,
            _ => 1,
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            CliError::Api(error) => error.hint(),
            CliError::Line(error) => error.hint(),
            CliError::Speech(error) => error.hint(),
            CliError::SessionFailed { session_id, reason } => Some(format!(
                "{}; `callbox logs {session_id}` shows what the bot wrote",
                end_hint(&reason.code)
            )),
            CliError::NoAudio { session_id, .. } => {
                Some(format!("`callbox logs {session_id}` shows what the bot wrote"))
            }
            CliError::Config(_) => {
                Some("`callbox config --defaults` prints every key with its meaning".to_owned())
            }
            CliError::Busy(_) => {
                Some("stop that one, or set `data_dir` to another directory".to_owned())
            }
            CliError::Serve(_) => {
                Some("`callbox doctor` looks at the data directory and its disk".to_owned())
            }
            CliError::Owner(OwnerError::Others { theirs, .. }) => Some(format!(
                "set `store` (or CALLBOX_STORE) to the store of deployment {theirs}, as it was when \
                 these were made; if that store is gone, `callbox sweep --all` ends what is left"
            )),
            CliError::Open(_) => {
                Some("make a key first (`callbox keys create`), or listen on 127.0.0.1".to_owned())
            }
            CliError::Host(_) => Some("`callbox doctor` says what is missing".to_owned()),
            CliError::Listen { .. } => Some(
                "another program may serve there; set `listen` (or CALLBOX_LISTEN) to another \
                 address, port 0 for any free one"
                    .to_owned(),
            ),
            CliError::Image { hint, .. } => hint.clone(),
            CliError::RolloutFailed { .. } => Some(
                "build the image anew and ask again; the dispatcher's log says more".to_owned(),
            ),
            CliError::OtherReplica { .. } => Some(
                "this is of one dispatcher, and --url is that of several: give the dispatcher's own \
                 URL; `callbox replicas` shows them"
                    .to_owned(),
            ),
            CliError::TooSlow { .. } => Some("a longer --timeout waits longer".to_owned()),
            _ => None,
        }
    }

    /// Prints the error and its hint to standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        // A reader that went away (`callbox ps | head`) is the reader's business.
        if let CliError::Output(error) = self
            && error.kind() == std::io::ErrorKind::BrokenPipe
        {
            return ExitCode::SUCCESS;
        }
        let look = Look::of_stderr();
        eprintln!("{} {}", look.paint(terminal::BAD.bold(), "error:"), chain(self));
        if let Some(hint) = self.hint() {
            eprintln!("{} {}", look.paint(terminal::WARN, " hint:"), printable(&hint));
        }
        ExitCode::from(self.code())
    }
}

/// The message and the causes that it does not already contain.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    printable(&text)
}

/// What to do about a session that ended with this code.
pub fn end_hint(code: &str) -> &'static str {
    match code {
        "join-timeout" => "the client was too late; open the websocket right after the start",
        "queue-timeout" => {
            "the host was full; raise the bot's queued deadline, or give the host more room \
             ([local] in the configuration)"
        }
        "start-timeout" => {
            "the machine did not run in time; raise the bot's start deadline, or look whether \
             the host is out of memory or processors"
        }
        "ready-timeout" => {
            "the bot's program did not say that it is ready; its imports may need longer than \
             the bot's ready deadline"
        }
        "start-failed" => {
            "the provider could not make a machine; `callbox doctor` checks this host"
        }
        "room-failed" => "check the transport's settings and credentials",
        "bot-not-ready" => "check the bot's command and its configuration",
        "bot-failed" => "the bot's program ended with an error",
        "bot-out-of-memory" => "give the bot more memory in its configuration",
        "machine-lost" => "the machine ended without a word; the dispatcher's log may say more",
        "client-overflow" => "send less before the bot is ready",
        "dispatcher-restarted" => "start again",
        _ => "the dispatcher's log may say more",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use callbox_core::{EndCode, Outcome};

    use super::*;

    #[test]
    fn every_way_to_fail_has_its_own_hint() {
        let fallback = end_hint("no-such-code");
        for code in EndCode::ALL.iter().filter(|code| code.outcome() == Outcome::Failed) {
            assert_ne!(end_hint(code.as_str()), fallback, "{}", code.as_str());
        }
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let reason = EndReason { code: "bot-failed".into(), detail: "exit status 1".into() };
        let failed = CliError::SessionFailed { session_id: "s".into(), reason };
        assert_eq!(failed.code(), 4);
        assert!(failed.hint().unwrap().contains("callbox logs s"));
        assert_eq!(CliError::Usage("x".into()).code(), 2);
        let silent = CliError::NoAudio { session_id: "s".into(), detail: "silence".into() };
        assert_eq!(silent.code(), 3);
    }
}
