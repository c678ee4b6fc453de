//! How asking the dispatcher fails, and what to do about it.

use reqwest::{StatusCode, Url};
use serde_json::Value;

/// How much of a senseless answer is shown, in characters.
const EXCERPT: usize = 120;

/// Why the dispatcher did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address cannot be one of a dispatcher.
    #[error("cannot use {url:?} as the dispatcher's address: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers there.
    #[error("cannot {doing}: no dispatcher answers at {url}")]
    Connect {
        /// What was attempted.
        doing: &'static str,
        /// Where.
        url: String,
        /// What the network says.
        #[source]
        source: reqwest::Error,
    },
    /// Somebody answers there, but nobody whom this host trusts.
    #[error("cannot {doing}: the certificate of {url} is not accepted: {reason}")]
    Untrusted {
        /// What was attempted.
        doing: &'static str,
        /// Where.
        url: String,
        /// What TLS says.
        reason: String,
    },
    /// The answer did not come in time.
    #[error("cannot {doing}: the dispatcher did not answer in time")]
    Timeout {
        /// What was attempted.
        doing: &'static str,
    },
    /// The connection broke before the answer was complete.
    #[error("cannot {doing}: the connection to the dispatcher broke")]
    Broken {
        /// What was attempted.
        doing: &'static str,
        /// What the network says.
        #[source]
        source: reqwest::Error,
    },
    /// The dispatcher said no.
    #[error("cannot {doing}: {text} ({status})")]
    Refused {
        /// What was attempted.
        doing: &'static str,
        /// HTTP status.
        status: StatusCode,
        /// The dispatcher's words.
        text: String,
        /// The dispatcher's advice, or ours.
        hint: Option<String>,
        /// When to ask again, in seconds, if it may help.
        retry_after: Option<u64>,
    },
    /// Somebody between us and the dispatcher said no.
    #[error("cannot {doing}: the answer is not a dispatcher's: {status} with {found}")]
    Between {
        /// What was attempted.
        doing: &'static str,
        /// HTTP status.
        status: StatusCode,
        /// What came with it.
        found: String,
    },
    /// What came is not what a dispatcher answers.
    #[error("cannot {doing}: the answer is not a dispatcher's: {found}")]
    Nonsense {
        /// What was attempted.
        doing: &'static str,
        /// What came instead.
        found: String,
    },
}

impl ApiError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ApiError::Connect { .. } => {
                Some("is `callbox serve` running? --url or CALLBOX_URL says where".to_owned())
            }
            ApiError::Untrusted { .. } => {
                Some("SSL_CERT_FILE may name a file with further certificates to trust".to_owned())
            }
            ApiError::Nonsense { .. } | ApiError::Between { .. } => {
                Some("does --url point at callbox, and not at something in front of it?".to_owned())
            }
            ApiError::Url { .. } => Some("for example http://127.0.0.1:7860".to_owned()),
            ApiError::Refused { hint, .. } => hint.clone(),
            ApiError::Timeout { .. } | ApiError::Broken { .. } => {
                Some("the dispatcher's log may say more".to_owned())
            }
        }
    }

    /// Whether the command line is to blame.
    pub fn is_usage(&self) -> bool {
        matches!(self, ApiError::Url { .. })
    }

    /// Whether there is no such thing (or not for this key).
    pub fn is_not_found(&self) -> bool {
        matches!(self, ApiError::Refused { status: StatusCode::NOT_FOUND, .. })
    }

    /// Whether nobody could answer just now, and somebody may in a while.
    pub fn may_pass(&self) -> bool {
        match self {
            ApiError::Connect { .. } | ApiError::Timeout { .. } | ApiError::Broken { .. } => true,
            ApiError::Refused { status, .. } | ApiError::Between { status, .. } => {
                *status == StatusCode::SERVICE_UNAVAILABLE
            }
            ApiError::Url { .. } | ApiError::Untrusted { .. } | ApiError::Nonsense { .. } => false,
        }
    }

    /// Whether what was waited for did not happen in the time that was asked for.
    pub(super) fn is_not_yet(&self) -> bool {
        matches!(self, ApiError::Refused { status: StatusCode::GATEWAY_TIMEOUT, .. })
    }

    pub(super) fn broken(doing: &'static str, source: reqwest::Error) -> ApiError {
        if source.is_timeout() {
            return ApiError::Timeout { doing };
        }
        ApiError::Broken { doing, source: source.without_url() }
    }

    pub(super) fn sending(doing: &'static str, base: &Url, source: reqwest::Error) -> ApiError {
        if source.is_connect() {
            let url = base.as_str().trim_end_matches('/').to_owned();
            if let Some(reason) = tls_error(&source) {
                return ApiError::Untrusted { doing, url, reason };
            }
            return ApiError::Connect { doing, url, source: source.without_url() };
        }
        ApiError::broken(doing, source)
    }

    pub(super) fn unprintable(doing: &'static str) -> ApiError {
        ApiError::Nonsense { doing, found: "a request that is not JSON".to_owned() }
    }

    pub(super) fn json(doing: &'static str, body: &[u8], source: serde_json::Error) -> ApiError {
        ApiError::Nonsense { doing, found: format!("{} ({source})", excerpt(body)) }
    }

    /// From an answer that is not 2xx. Reads our own error body and its relatives
    /// (`{"detail":…}`); anything else comes from something in between.
    pub(super) fn refusal(
        doing: &'static str,
        status: StatusCode,
        body: &[u8],
        had_key: bool,
    ) -> ApiError {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = ["error", "detail", "info"].iter().find_map(|name| json.get(name)?.as_str());
        let Some(text) = text else {
            return ApiError::Between { doing, status, found: excerpt(body) };
        };
        // Ours first: the dispatcher's speaks to those who write HTTP requests.
        let advice = || json.get("hint").and_then(Value::as_str).map(str::to_owned);
        let hint = key_hint(status, had_key).or_else(advice);
        ApiError::Refused { doing, status, text: text.to_owned(), hint, retry_after: None }
    }
}

impl ApiError {
    /// With when to ask again, if the answer said so.
    pub(super) fn retry_after(mut self, seconds: Option<u64>) -> ApiError {
        if let ApiError::Refused { retry_after, .. } = &mut self {
            *retry_after = seconds;
        }
        self
    }
}

/// What TLS says, if it is TLS that failed.
fn tls_error(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls.to_string());
    }
    // An I/O error hides what it wraps from `source`.
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => tls_error(wrapped),
        None => tls_error(error.source()?),
    }
}

fn key_hint(status: StatusCode, had_key: bool) -> Option<String> {
    match (status, had_key) {
        (StatusCode::UNAUTHORIZED, false) => {
            Some("set CALLBOX_KEY, or use --key-file; `callbox keys create` makes a key".to_owned())
        }
        (StatusCode::UNAUTHORIZED, true) => {
            Some("the key is not known to this dispatcher".to_owned())
        }
        (StatusCode::FORBIDDEN, _) => {
            Some("public keys may only start sessions; use a private key".to_owned())
        }
        _ => None,
    }
}

fn excerpt(body: &[u8]) -> String {
    if body.is_empty() {
        return "an empty body".to_owned();
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * EXCERPT)]);
    let mut short: String = text.chars().take(EXCERPT).collect();
    if short.len() < text.len() || text.len() < body.len() {
        short.push('…');
    }
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refusal(status: u16, body: &str) -> ApiError {
        ApiError::refusal("x", StatusCode::from_u16(status).unwrap(), body.as_bytes(), false)
    }

    #[test]
    fn the_dispatchers_words_and_advice_are_kept() {
        let error = refusal(429, r#"{"error":"full","code":"429","hint":"wait"}"#);
        assert_eq!(error.to_string(), "cannot x: full (429 Too Many Requests)");
        assert_eq!(error.hint().unwrap(), "wait");
        assert_eq!(refusal(404, r#"{"detail":"no"}"#).to_string(), "cannot x: no (404 Not Found)");
    }

    #[test]
    fn a_missing_key_is_named() {
        assert!(refusal(401, r#"{"error":"no"}"#).hint().unwrap().contains("CALLBOX_KEY"));
    }

    #[test]
    fn anything_else_is_quoted_but_not_in_full() {
        for body in ["<html>gateway</html>", "", "{\"err", "[1]", "\u{1b}[31m"] {
            assert!(matches!(refusal(502, body), ApiError::Between { .. }), "{body}");
        }
        let long = refusal(502, &"é".repeat(5000)).to_string();
        assert!(long.chars().count() < 300, "{long}");
    }
}
