//! How an agent reaches its dispatcher where no serial port leads to the machine: it dials.
//!
//! ```text
//! agent -> dispatcher   GET {url}/v1/machines/{machine}/link     Upgrade: websocket
//!                       Authorization: Bearer {token}            X-Callbox-Boot: {32 hex digits}
//! dispatcher -> agent   101; from here on, binary messages are the carrier of [`crate::agent`]
//! ```
//!
//! Texts of messages and where they are cut mean nothing; their bytes in order are the stream.
//! Whoever dialled, the agent is the server on it: it waits for the dispatcher's hello.
//!
//! | answer | what the agent does |
//! |---|---|
//! | 101 | serves, and dials again when the connection ends |
//! | 410 | ends its machine: the dispatcher is certain that nobody wants it any more |
//! | anything else, or none | dials again, until it has been alone for too long ([`Join::orphan_ms`]) |
//!
//! # Who may
//!
//! The token in [`Join`] lies in the machine's configuration at its provider, where others may
//! read it. So it is good for a machine that has not started yet, and for one process: the first
//! that came with it. Over the connection that process gets another one ([`Rejoin`]), which is
//! nowhere else, before anything of a session is said; with it alone it may come back.

use serde::{Deserialize, Serialize};

/// Where the agent looks for its [`Join`], unless it is told otherwise.
pub const JOIN_FILE: &str = "/etc/callbox/join.json";
/// Tells which process of a machine dials: drawn at its start.
pub const BOOT_HEADER: &str = "x-callbox-boot";

/// Path at which the agent of this machine dials.
pub fn link_path(machine: &str) -> String {
    format!("/v1/machines/{machine}/link")
}

/// What a machine is told by a file that its provider puts into it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The dispatcher's address as the machine sees it: `https://…` or, on private networks and
    /// one host, `http://…`; a path in it comes before ours.
    pub url: String,
    /// The machine's name.
    pub machine: String,
    /// Opens the connection once. A secret.
    pub token: String,
    /// The machine ends itself when no dispatcher has been connected for so many milliseconds.
    pub orphan_ms: u64,
    /// Between the bot's SIGTERM and its SIGKILL when the provider stops the machine, in
    /// milliseconds.
    pub stop_grace_ms: u64,
    /// PEM certificates of authorities to trust beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join")
            .field("url", &self.url)
            .field("machine", &self.machine)
            .field("orphan_ms", &self.orphan_ms)
            .finish_non_exhaustive()
    }
}

/// Body of `POST /v1/rejoin`: what opens the next connection of this process. A secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejoin {
    /// In the place of [`Join::token`].
    pub token: String,
    /// In the place of [`Join::machine`], from a machine of a reserve that a session took; absent
    /// leaves the name as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The machine may be suspended at any moment from now on, and what it waits for then is lost:
    /// when this connection ends it dials in short steps, each beside those before it, so that it
    /// is back at once when it goes on.
    #[serde(default)]
    pub eager: bool,
}

impl std::fmt::Debug for Rejoin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rejoin(…)")
    }
}
