use std::io;

use callbox_protocol::agent::AgentError;

/// Why a call to an agent has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The carrier ended or failed before the agent answered a hello, or HTTP/2 did not start.
    #[error("no agent answered the hello on this carrier")]
    Hello(#[source] io::Error),

    /// The connection is gone: the machine ended, or the carrier was cut. Whether the call
    /// took effect is not known.
    #[error("the connection to the agent is closed")]
    Closed,

    /// The agent said something that the protocol has no meaning for.
    #[error("the agent broke the protocol in {call}: {what}")]
    Protocol {
        /// The call that was made.
        call: &'static str,
        /// What was wrong with the answer.
        what: String,
    },

    /// The agent refused the call, in its own words.
    #[error("the agent refused {call} ({status} {}): {}", error.code, error.message)]
    Agent {
        /// The call that was made.
        call: &'static str,
        /// HTTP status of the answer.
        status: u16,
        /// The agent's own account, with the bot's last lines where they help.
        error: AgentError,
    },

    /// The machine woke but is not proven to be different from its template. It must not get
    /// a session's data.
    #[error("the machine is not safely awake: {detail}")]
    NotReseeded {
        /// Which part of the acknowledgement is missing.
        detail: String,
    },

    /// An answer or a line was longer than the protocol allows.
    #[error("the agent's answer to {call} is longer than {limit} bytes")]
    TooLarge {
        /// The call that was made.
        call: &'static str,
        /// The limit, in bytes.
        limit: usize,
    },
}

impl LinkError {
    /// The stable code of the agent's refusal (`bot-exited`, `not-ready`, …), if it refused.
    pub fn agent_code(&self) -> Option<&str> {
        match self {
            LinkError::Agent { error, .. } => Some(&error.code),
            _ => None,
        }
    }

    /// The last lines that the bot wrote, where the agent sent them along.
    pub fn log_tail(&self) -> &[String] {
        match self {
            LinkError::Agent { error, .. } => &error.log_tail,
            _ => &[],
        }
    }
}
