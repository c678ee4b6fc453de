//! QMP: how this crate talks to a running QEMU.
//!
//! One JSON object per line, in both directions. QEMU greets, the client leaves negotiation
//! mode, then every command gets exactly one answer; events may come between.
//!
//! ```text
//! QEMU   -> {"QMP": {...}}                             greeting
//! client -> {"execute": "qmp_capabilities"}
//! QEMU   -> {"return": {}}
//! client -> {"execute": "cont"}
//! QEMU   -> {"timestamp": {...}, "event": "RESUME"}    kept until somebody waits for it
//! QEMU   -> {"return": {}}
//! ```
//!
//! The client is strictly one command at a time and has no task of its own: it reads only while
//! somebody waits. It fails closed: after a broken line, an answer that belongs to no command or
//! a cancelled command, every further call is [`QmpError::Closed`].
//!
//! What QEMU says is trusted no more than it must be (a guest that escapes into QEMU speaks
//! here): lines and kept events are bounded, and nothing panics.

mod client;
mod wire;

pub use client::Qmp;

/// Why a conversation with QEMU failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed.
    #[error("cannot {doing} over qmp")]
    Io {
        /// What was attempted.
        doing: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// QEMU hung up (it has exited, as a rule), or an earlier failure made the connection useless.
    #[error("qemu closed its qmp connection while the client tried to {doing}")]
    Closed {
        /// What was attempted.
        doing: String,
    },
    /// QEMU understood the command and refused it.
    #[error("qemu refused {command:?}: {description} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's class of error, `GenericError` as a rule.
        class: String,
        /// QEMU's own words.
        description: String,
    },
    /// What came is not QMP.
    #[error("qemu does not speak qmp as expected: {0}")]
    Protocol(String),
}
