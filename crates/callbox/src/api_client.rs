//! The dispatcher's public API, typed. Every answer is untrusted: bounded, parsed, and where it
//! makes no sense, an error that says what came instead.

mod body;
mod error;

use std::time::Duration;

use callbox_protocol::api::{
    Drain, DrainRequest, Info, LogEntry, PriceList, QUEUE_POSITION_HEADER, ReplicaList, Rollout,
    RolloutList, SESSION_ID_HEADER, Session, SessionList, StartRequest, Sweep, WebsocketJoin,
};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use reqwest::header::HeaderMap;
use reqwest::{Method, Request, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::body::{events_named, read_body, read_json};
pub use self::error::ApiError;
use crate::secret::Secret;

/// How long an answer may take that has no reason to wait for anything.
const PROMPT: Duration = Duration::from_secs(30);

/// A client of one dispatcher. Cheap to clone.
#[derive(Clone)]
pub struct ApiClient {
    http: reqwest::Client,
    base: Url,
    key: Option<Secret>,
}

/// What a start gives to the client.
pub struct Started {
    /// The session.
    pub session_id: String,
    /// Where the media websocket is.
    pub ws_url: String,
    /// Opens the websocket and lets its holder watch and end this session.
    pub token: Secret,
    /// Its position in the queue, if it has to wait.
    pub queue_position: Option<u32>,
}

/// The answer of `GET /v1/sessions/{id}/logs`.
#[derive(serde::Deserialize)]
struct Logs {
    logs: Vec<LogEntry>,
}

impl ApiClient {
    /// Checks the address; asks nothing of anybody.
    pub fn new(url: &str, key: Option<Secret>) -> Result<ApiClient, ApiError> {
        let base = parse_base(url)?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("callbox/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5));
        if let Some(tls) = crate::tls::config() {
            http = http.tls_backend_preconfigured((*tls).clone());
        }
        if is_loopback(&base) {
            // A proxy from the environment cannot reach this host's loopback.
            http = http.no_proxy();
        }
        let http = http.build().map_err(|source| ApiError::broken("prepare a request", source))?;
        Ok(ApiClient { http, base, key })
    }

    /// The same dispatcher, as somebody else.
    pub fn with_key(&self, key: Secret) -> ApiClient {
        ApiClient { key: Some(key), ..self.clone() }
    }

    /// `POST /start` with transport `websocket`.
    pub async fn start(&self, request: &StartRequest) -> Result<Started, ApiError> {
        let doing = "start a session";
        let mut http = self.request(Method::POST, &["start"], &[]);
        *http.timeout_mut() = Some(Duration::from_secs(120));
        set_json(doing, &mut http, request)?;
        let response = self.send(doing, http).await?;
        let header = response.headers().get(SESSION_ID_HEADER).cloned();
        let queue_position = number(response.headers(), QUEUE_POSITION_HEADER)
            .and_then(|position| u32::try_from(position).ok());
        let join: WebsocketJoin = read_json(doing, response).await?;
        // The token names the session too: a proxy in between may have dropped the header.
        let session_id = match header.as_ref().and_then(|value| value.to_str().ok()) {
            Some(id) => id.to_owned(),
            None => join.token.split('.').next().unwrap_or_default().to_owned(),
        };
        if session_id.is_empty() {
            return Err(ApiError::Nonsense {
                doing,
                found: format!("an answer without {SESSION_ID_HEADER}"),
            });
        }
        Ok(Started {
            session_id,
            ws_url: join.ws_url,
            token: Secret::new(&join.token),
            queue_position,
        })
    }

    /// `GET /v1/info`.
    pub async fn info(&self) -> Result<Info, ApiError> {
        let doing = "ask what the dispatcher is";
        let request = self.request(Method::GET, &["v1", "info"], &[]);
        read_json(doing, self.send(doing, request).await?).await
    }

    /// `GET /v1/replicas`.
    pub async fn replicas(&self) -> Result<ReplicaList, ApiError> {
        let doing = "list the dispatchers";
        let request = self.request(Method::GET, &["v1", "replicas"], &[]);
        read_json(doing, self.send(doing, request).await?).await
    }

    /// `GET /v1/prices`.
    pub async fn prices(&self) -> Result<PriceList, ApiError> {
        let doing = "ask what machines cost";
        let request = self.request(Method::GET, &["v1", "prices"], &[]);
        read_json(doing, self.send(doing, request).await?).await
    }

    /// `GET /v1/sessions/{id}`.
    pub async fn session(&self, id: &str) -> Result<Session, ApiError> {
        let doing = "look at a session";
        let request = self.request(Method::GET, &["v1", "sessions", id], &[]);
        read_json(doing, self.send(doing, request).await?).await
    }

    /// The session as soon as it has ended, or as it is after `longest`.
    pub async fn when_ended(&self, id: &str, longest: Duration) -> Result<Session, ApiError> {
        self.when("wait for a session's end", "ended", id, longest).await
    }

    /// The session as soon as its bot is ready or it has ended, or as it is after `longest`.
    pub async fn when_ready(&self, id: &str, longest: Duration) -> Result<Session, ApiError> {
        self.when("wait for a bot", "ready", id, longest).await
    }

    async fn when(
        &self,
        doing: &'static str,
        moment: &str,
        id: &str,
        longest: Duration,
    ) -> Result<Session, ApiError> {
        let timeout = longest.as_millis().to_string();
        let query = [("wait", moment), ("timeout_ms", timeout.as_str())];
        let mut request = self.request(Method::GET, &["v1", "sessions", id], &query);
        *request.timeout_mut() = Some(longest + PROMPT);
        match self.send(doing, request).await {
            Err(error) if error.is_not_yet() => self.session(id).await,
            answer => read_json(doing, answer?).await,
        }
    }

    /// `GET /v1/sessions`: one page.
    pub async fn sessions(&self, query: &[(&str, &str)]) -> Result<SessionList, ApiError> {
        let doing = "list sessions";
        let request = self.request(Method::GET, &["v1", "sessions"], query);
        read_json(doing, self.send(doing, request).await?).await
    }

    /// `DELETE /v1/sessions/{id}`: asks for its end and gives the session as it is then.
    pub async fn stop(&self, id: &str) -> Result<Session, ApiError> {
        let doing = "stop a session";
        let request = self.request(Method::DELETE, &["v1", "sessions", id], &[]);
        read_json(doing, self.send(doing, request).await?).await
    }

    /// `POST /v1/drain`: no new sessions, and with a deadline, none at all then.
    pub async fn drain(&self, deadline: Option<Duration>) -> Result<Drain, ApiError> {
        let doing = "drain the dispatcher";
        let mut request = self.request(Method::POST, &["v1", "drain"], &[]);
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        set_json(doing, &mut request, &DrainRequest { deadline_ms: deadline.map(millis) })?;
        read_json(doing, self.send(doing, request).await?).await
    }

    /// `GET /v1/drain`.
    pub async fn drain_status(&self) -> Result<Drain, ApiError> {
        let doing = "look at the drain";
        let request = self.request(Method::GET, &["v1", "drain"], &[]);
        read_json(doing, self.send(doing, request).await?).await
    }

    /// `DELETE /v1/drain`: sessions are taken again.
    pub async fn drain_cancel(&self) -> Result<Drain, ApiError> {
        let doing = "cancel the drain";
        let request = self.request(Method::DELETE, &["v1", "drain"], &[]);
        read_json(doing, self.send(doing, request).await?).await
    }

    /// `POST /v1/sweep`, or `GET` for a dry run: what no living session claims.
    pub async fn sweep(&self, dry_run: bool) -> Result<Sweep, ApiError> {
        let doing = "sweep";
        let method = if dry_run { Method::GET } else { Method::POST };
        let mut request = self.request(method, &["v1", "sweep"], &[]);
        *request.timeout_mut() = Some(Duration::from_secs(120));
        read_json(doing, self.send(doing, request).await?).await
    }

    /// `GET /v1/rollouts`: the versions of all bots, or of one.
    pub async fn rollouts(&self, bot: Option<&str>) -> Result<RolloutList, ApiError> {
        let doing = "look at rollouts";
        let query: Vec<(&str, &str)> = bot.iter().map(|bot| ("bot", *bot)).collect();
        let request = self.request(Method::GET, &["v1", "rollouts"], &query);
        read_json(doing, self.send(doing, request).await?).await
    }

    /// `POST /v1/bots/{bot}/rollout`: its image is looked at anew.
    pub async fn roll(&self, bot: &str) -> Result<Rollout, ApiError> {
        let doing = "roll a bot out";
        let request = self.request(Method::POST, &["v1", "bots", bot, "rollout"], &[]);
        read_json(doing, self.send(doing, request).await?).await
    }

    /// `GET /v1/sessions/{id}/logs`: what there is.
    pub async fn logs(&self, id: &str) -> Result<Vec<LogEntry>, ApiError> {
        let doing = "read a session's log";
        let request = self.request(Method::GET, &["v1", "sessions", id, "logs"], &[]);
        let Logs { logs } = read_json(doing, self.send(doing, request).await?).await?;
        Ok(logs)
    }

    /// `GET /v1/sessions/{id}/logs?follow=true`: what there is and what comes.
    pub async fn follow_logs(
        &self,
        id: &str,
    ) -> Result<BoxStream<'static, Result<LogEntry, ApiError>>, ApiError> {
        let query = [("follow", "true")];
        let mut request = self.request(Method::GET, &["v1", "sessions", id, "logs"], &query);
        *request.timeout_mut() = None;
        self.stream("follow a session's log", "log", request).await
    }

    /// `GET /v1/sessions/{id}/events`: the session now and after every change.
    pub async fn events(
        &self,
        id: &str,
    ) -> Result<BoxStream<'static, Result<Session, ApiError>>, ApiError> {
        let mut request = self.request(Method::GET, &["v1", "sessions", id, "events"], &[]);
        *request.timeout_mut() = None;
        self.stream("watch a session", "session", request).await
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> Request {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = Request::new(method, url);
        *request.timeout_mut() = Some(PROMPT);
        if let Some(key) = &self.key
            && let Ok(mut value) =
                reqwest::header::HeaderValue::try_from(format!("Bearer {}", key.expose()))
        {
            value.set_sensitive(true);
            request.headers_mut().insert(reqwest::header::AUTHORIZATION, value);
        }
        request
    }

    async fn send(&self, doing: &'static str, request: Request) -> Result<Response, ApiError> {
        let response = self
            .http
            .execute(request)
            .await
            .map_err(|source| ApiError::sending(doing, &self.base, source))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let had_key = self.key.is_some();
        let retry_after = number(response.headers(), "retry-after");
        let body = read_body(doing, response).await?;
        Err(ApiError::refusal(doing, status, &body, had_key).retry_after(retry_after))
    }

    async fn stream<T: DeserializeOwned + Send + 'static>(
        &self,
        doing: &'static str,
        name: &'static str,
        request: Request,
    ) -> Result<BoxStream<'static, Result<T, ApiError>>, ApiError> {
        let response = self.send(doing, request).await?;
        let bytes = response.bytes_stream().map_err(move |source| ApiError::broken(doing, source));
        Ok(events_named(doing, name, bytes).boxed())
    }
}

fn set_json<T: Serialize>(
    doing: &'static str,
    request: &mut Request,
    body: &T,
) -> Result<(), ApiError> {
    let body = serde_json::to_vec(body).map_err(|_| ApiError::unprintable(doing))?;
    *request.body_mut() = Some(body.into());
    request.headers_mut().insert(
        reqwest::header::CONTENT_TYPE,
        reqwest::header::HeaderValue::from_static("application/json"),
    );
    Ok(())
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn parse_base(url: &str) -> Result<Url, ApiError> {
    let unusable = |reason: String| ApiError::Url { url: url.to_owned(), reason };
    let mut base = Url::parse(url).map_err(|error| unusable(error.to_string()))?;
    if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
        return Err(unusable("it does not begin with http:// or https://".to_owned()));
    }
    base.set_query(None);
    base.set_fragment(None);
    Ok(base)
}

/// Whether it is this host that is named.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_may_have_a_path_and_must_be_http() {
        let client = ApiClient::new("https://voice.example.com/callbox/?x=1#y", None).unwrap();
        let request = client.request(Method::GET, &["v1", "sessions", "a/b?"], &[("wait", "a&b")]);
        assert_eq!(
            request.url().as_str(),
            "https://voice.example.com/callbox/v1/sessions/a%2Fb%3F?wait=a%26b"
        );
        for bad in ["localhost:7860", "ftp://x/", "", "http://"] {
            assert!(matches!(ApiClient::new(bad, None), Err(ApiError::Url { .. })), "{bad}");
        }
    }

    #[test]
    fn keys_travel_as_sensitive_headers_and_with_nothing_else() {
        let client = ApiClient::new("http://127.0.0.1:1", Some(Secret::new("cbk_x"))).unwrap();
        let request = client.request(Method::GET, &["v1"], &[]);
        assert!(request.headers()["authorization"].is_sensitive());
        assert!(!format!("{request:?}").contains("cbk_x"));
    }

    #[test]
    fn loopback_is_recognised() {
        for (url, expected) in [
            ("http://localhost:1", true),
            ("http://127.0.0.9", true),
            ("http://[::1]:7", true),
            ("http://example.com", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
