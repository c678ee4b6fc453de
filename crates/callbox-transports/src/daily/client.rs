//! Calls of Daily's REST API, and what their failures mean.

use std::{fmt, time::Duration};

use callbox_core::Fault;
use http::{Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::limits::{DELETE, LOOK, MOST, Pace};

/// Where everybody reaches it.
pub const API_URL: &str = "https://api.daily.co/v1";
/// How long one answer is waited for.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest text of Daily's that is kept.
const LONGEST: usize = 500;

/// One domain's API, within its limits.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
    most: Pace,
    delete: Pace,
    look: Pace,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

/// A failed call.
#[derive(Debug)]
pub(super) struct CallError {
    /// What may be concluded from it.
    pub fault: Fault,
    /// A room of this name exists.
    pub is_taken: bool,
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Fault {
        error.fault
    }
}

/// Daily's own words.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    error: String,
    info: String,
}

/// Who we are to Daily.
#[derive(Debug, Deserialize)]
pub(super) struct Domain {
    pub domain_name: String,
    pub domain_id: String,
}

/// Somebody in a room.
#[derive(Debug, Deserialize)]
pub(super) struct Participant {
    #[serde(rename = "userId", default)]
    pub user_id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct People {
    pub data: Vec<Participant>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RoomEntry {
    pub id: String,
    pub name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub data: Vec<RoomEntry>,
}

impl Client {
    pub fn new(http: reqwest::Client, base: &str, key: String) -> Client {
        let base = base.trim_end_matches('/').to_owned();
        let [most, delete, look] = [MOST, DELETE, LOOK].map(Pace::new);
        Client { http, base, key, most, delete, look }
    }

    /// So many dispatchers share the limits from now on.
    pub fn share(&self, replicas: usize) {
        [&self.most, &self.delete, &self.look].into_iter().for_each(|pace| pace.share(replicas));
    }

    /// Whether a single room may be looked into now; takes the turn.
    pub fn may_look(&self) -> bool {
        self.look.take()
    }

    /// A call that is only asked of, or that says what is to be.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, CallError> {
        self.paced(&self.most, method, path, body).await
    }

    /// Removes a room.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn delete(&self, name: &str) -> Result<Value, CallError> {
        self.paced(&self.delete, Method::DELETE, &format!("/rooms/{name}"), None).await
    }

    async fn paced<T: DeserializeOwned>(
        &self,
        pace: &Pace,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, CallError> {
        pace.turn().await;
        let answer = self.send(&method, path, body).await;
        match &answer {
            Err((_, Some(StatusCode::TOO_MANY_REQUESTS))) => pace.too_often().await,
            _ => pace.fine(),
        }
        answer.map_err(|(error, _)| error)
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, (CallError, Option<StatusCode>)> {
        let what = format!("{method} {}", path.split('?').next().unwrap_or(path));
        let only_asks = *method == Method::GET;
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base));
        request = request.bearer_auth(&self.key).timeout(ANSWER);
        if let Some(body) = body {
            request = request.json(body);
        }
        let failed = |fault| (CallError { fault, is_taken: false }, None);
        let answer = request.send().await.map_err(|error| failed(broken(&what, &error)))?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(|error| failed(broken(&what, &error)))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| {
                let detail = format!("{what}: Daily's answer makes no sense: {error}");
                // Of what only asks, nothing can have happened.
                let fault =
                    if only_asks { Fault::unavailable(detail) } else { Fault::unknown(detail) };
                (CallError { fault, is_taken: false }, Some(status))
            });
        }
        Err((classify(&what, status, &bytes), Some(status)))
    }
}

/// What an answer that is no success means: by its status, and where that says too little, by its
/// words.
fn classify(what: &str, status: StatusCode, body: &[u8]) -> CallError {
    let words: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
    let info: String = words.info.chars().take(LONGEST).collect();
    let detail = format!("{what}: Daily answered {} {} {info}", status.as_u16(), words.error);
    let detail = detail.trim_end().to_owned();
    let text = words.info.to_ascii_lowercase();
    let is_taken = status == StatusCode::BAD_REQUEST && text.contains("already exists");
    let fault = match status.as_u16() {
        429 => Fault::unavailable(detail),
        404 => Fault::not_found(detail),
        _ if words.error == "not-found" => Fault::not_found(detail),
        _ if words.error == "rate-limit-error" => Fault::unavailable(detail),
        400..=499 => Fault::refused(detail),
        // What a proxy or an overloaded server says: it may have gone through all the same.
        _ => Fault::unknown(detail),
    };
    CallError { fault, is_taken }
}

/// What a broken request means: only what failed while connecting certainly did not arrive.
fn broken(what: &str, error: &reqwest::Error) -> Fault {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match error.is_connect() || error.is_builder() {
        true => Fault::unavailable(format!("{what}: cannot reach Daily: {cause}")),
        false => Fault::unknown(format!("{what}: no answer of Daily's: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use callbox_core::FaultKind as K;

    use super::*;

    #[test]
    fn every_error_of_dailys_has_its_meaning() {
        let cases = [
            (400, r#"{"error":"authorization-header-error","info":"x"}"#, K::Refused, false),
            (401, r#"{"error":"authentication-error"}"#, K::Refused, false),
            (403, r#"{"error":"forbidden-error","info":"x"}"#, K::Refused, false),
            (400, r#"{"error":"json-parsing-error","info":"x"}"#, K::Refused, false),
            (400, r#"{"error":"invalid-request-error","info":"exp is odd"}"#, K::Refused, false),
            (
                400,
                r#"{"error":"invalid-request-error","info":"a room named cb-1 already exists"}"#,
                K::Refused,
                true,
            ),
            (429, r#"{"error":"rate-limit-error"}"#, K::Unavailable, false),
            (429, "", K::Unavailable, false),
            (500, r#"{"error":"server-error"}"#, K::Unknown, false),
            (502, "<html>", K::Unknown, false),
            (404, r#"{"error":"not-found","info":"room x does not exist"}"#, K::NotFound, false),
            (404, "", K::NotFound, false),
        ];
        for (status, body, kind, taken) in cases {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = classify("POST /rooms", status, body.as_bytes());
            assert_eq!((error.fault.kind, error.is_taken), (kind, taken), "{status} {body}");
        }
    }
}
