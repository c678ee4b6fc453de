//! The body of an error, in both shapes (fly.md section 9).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lenient::or_default;

/// `{"error":"…","status":"…","details":{}}`, or `{"status":"error","message":"…"}` of leases.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct ErrorBody {
    /// The text, which usually begins with a gRPC word: `failed_precondition: …`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// A code where there is one: `unknown`, `insufficient_capacity`, `name_taken`,
    /// `volume_placement_capacity`; `error` in answers about leases.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The text of an answer about leases.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Deprecated.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

impl ErrorBody {
    /// With a text alone.
    pub fn text(error: impl Into<String>) -> ErrorBody {
        ErrorBody { error: Some(error.into()), ..ErrorBody::default() }
    }

    /// With a text and a code.
    pub fn coded(error: impl Into<String>, status: &str) -> ErrorBody {
        ErrorBody { status: Some(status.to_owned()), ..ErrorBody::text(error) }
    }

    /// Out of whatever came: what is no such body is its own text.
    pub fn read(body: &[u8]) -> ErrorBody {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(read) if read.error.is_some() || read.message.is_some() => read,
            Ok(read) if read.status.is_some() => read,
            _ => ErrorBody::text(String::from_utf8_lossy(body).trim()),
        }
    }

    /// The text for people: `message` first, as fly-go reads it.
    pub fn said(&self) -> &str {
        self.message.as_deref().or(self.error.as_deref()).unwrap_or_default()
    }
}
