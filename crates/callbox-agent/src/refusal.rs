use callbox_protocol::agent::{AgentError, Phase};
use http::StatusCode;

/// Why a call is not answered with 200.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub error: AgentError,
}

impl Refusal {
    fn new(status: StatusCode, code: &str, message: String) -> Self {
        let error = AgentError { code: code.to_owned(), message, log_tail: Vec::new() };
        Self { status, error }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", message.into())
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message.into())
    }

    /// The port does not accept a connection.
    pub(crate) fn no_listener(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "not-found", message.into())
    }

    pub(crate) fn wrong_phase(call: &str, phase: Phase) -> Self {
        let message = format!("{call} is not possible in the phase {phase:?}");
        Self::new(StatusCode::CONFLICT, "wrong-phase", message)
    }

    pub(crate) fn established(connections: &[String]) -> Self {
        let message = format!(
            "a template must hold no open connections, but there are {}: {}; close them before \
             the bot is ready, or set start = \"cold\"",
            connections.len(),
            connections.join(", ")
        );
        Self::new(StatusCode::CONFLICT, "established-connections", message)
    }

    pub(crate) fn bot_not_found(message: String) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bot-not-found", message)
    }

    pub(crate) fn bot_exited(message: String, log_tail: Vec<String>) -> Self {
        let mut refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bot-exited", message);
        refusal.error.log_tail = log_tail;
        refusal
    }

    pub(crate) fn not_ready(message: String, log_tail: Vec<String>) -> Self {
        let mut refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "not-ready", message);
        refusal.error.log_tail = log_tail;
        refusal
    }

    pub(crate) fn not_reseeded(message: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "not-reseeded", message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message.into())
    }
}
