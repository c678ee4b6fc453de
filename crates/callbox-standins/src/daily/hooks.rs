//! Webhooks: signed, sent in order to everybody who set one up. One that is not taken is sent
//! once more, so that receivers see repeats.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Full;
use hyper::{Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Duration, timeout},
};

use super::token;

/// How long a receiver may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Somebody who wants to be told.
#[derive(Clone, Debug)]
struct Hook {
    url: Uri,
    kinds: Vec<String>,
    secret: Vec<u8>,
}

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct Hooks {
    hooks: Arc<Mutex<Vec<Hook>>>,
    queue: mpsc::UnboundedSender<(Hook, String)>,
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Hooks {
    pub fn begin() -> Hooks {
        let (queue, mut queued) = mpsc::unbounded_channel::<(Hook, String)>();
        let answers: Arc<Mutex<Vec<u16>>> = Arc::default();
        let noted = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Some((hook, body)) = queued.recv().await {
                for _ in 0..2 {
                    let answer = deliver(&hook, &body).await;
                    if let Ok(status) = &answer {
                        noted.lock().expect("no panic while held").push(status.as_u16());
                    }
                    match answer {
                        Ok(status) if status.is_success() => break,
                        Ok(status) => tracing::warn!(%status, "a webhook was not taken"),
                        Err(error) => tracing::warn!(error, "a webhook was not taken"),
                    }
                }
            }
        });
        Hooks { hooks: Arc::default(), queue, answers }
    }

    /// Sets one up, after a test of it; gives what the API answers, or the text of the refusal.
    pub async fn add(&self, body: &Value) -> Result<Value, String> {
        let url = body["url"].as_str().unwrap_or_default();
        let url: Uri = url.parse().map_err(|_| format!("{url:?} is no address"))?;
        let secret = match body["hmac"].as_str() {
            Some(secret) => secret.to_owned(),
            None => STANDARD.encode(format!("{:x}", fastrand::u128(..))),
        };
        let decoded = STANDARD.decode(&secret).map_err(|_| "hmac is not in base64".to_owned())?;
        let kinds = body["eventTypes"].as_array().cloned().unwrap_or_default();
        let kinds = kinds.iter().filter_map(|kind| kind.as_str().map(str::to_owned)).collect();
        let hook = Hook { url: url.clone(), kinds, secret: decoded };
        let tested = deliver(&hook, r#"{"test":"test"}"#).await;
        if !tested.is_ok_and(|status| status == StatusCode::OK) {
            return Err("the webhook's url did not answer 200".into());
        }
        self.hooks.lock().expect("no panic while held").push(hook);
        Ok(json!({ "uuid": "standin", "url": url.to_string(), "hmac": secret, "state": "ACTIVE" }))
    }

    /// What receivers answered, in order.
    pub fn answers(&self) -> Vec<u16> {
        self.answers.lock().expect("no panic while held").clone()
    }

    pub fn send(&self, kind: &str, body: &Value) {
        for hook in self.hooks.lock().expect("no panic while held").iter() {
            if hook.kinds.iter().any(|wanted| wanted == kind) {
                // The task that sends them ends with the last of us.
                let _ = self.queue.send((hook.clone(), body.to_string()));
            }
        }
    }
}

async fn deliver(hook: &Hook, body: &str) -> Result<StatusCode, String> {
    timeout(ANSWER, post(hook, body)).await.unwrap_or_else(|_| Err("no answer in time".into()))
}

async fn post(hook: &Hook, body: &str) -> Result<StatusCode, String> {
    let authority = hook.url.authority().ok_or("its address has no host")?;
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(&address).await.map_err(|error| text(&error))?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| text(&error))?;
    let driving = tokio::spawn(connection);
    let sent = format!("{}", token::now() as i64);
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&hook.secret).expect("HMAC takes keys of any length");
    mac.update(format!("{sent}.{body}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let request = Request::post(hook.url.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-webhook-timestamp", sent)
        .header("x-webhook-signature", signature)
        .body(Full::new(Bytes::from(body.to_owned())));
    let request = request.map_err(|error| text(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| text(&error));
    driving.abort();
    Ok(answer?.status())
}
