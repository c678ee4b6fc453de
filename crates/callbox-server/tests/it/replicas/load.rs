//! Clients that start sessions, wait for them and end them, and ask another dispatcher when one
//! does not answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use callbox_machines::FakeProvider;
use callbox_protocol::api::Session;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

/// How long a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a client goes on asking before it gives up: longer than any trouble here lasts.
const GIVE_UP: Duration = Duration::from_secs(90);

/// What a client was told about a session, or how it came to nothing.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) key: String,
    /// Every id that this key was answered with.
    pub(crate) ids: BTreeSet<String>,
    pub(crate) lost: bool,
    /// How it ended, as far as the client heard.
    pub(crate) code: Option<String>,
    pub(crate) asked_again: u64,
}

/// Where the dispatchers are, and what clients have seen.
pub(crate) struct Load {
    pub(crate) addresses: Mutex<Vec<String>>,
    pub(crate) provider: Arc<FakeProvider>,
    pub(crate) private: String,
    pub(crate) http: Client,
    pub(crate) stop: AtomicBool,
    pub(crate) random: AtomicU64,
    pub(crate) told: Mutex<BTreeMap<String, Told>>,
}

impl Load {
    /// A number that depends on the seed and on how many were drawn before.
    pub(crate) fn draw(&self) -> u64 {
        let mut x = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// One client: one session after the other, until it is stopped.
    pub(crate) async fn client(self: Arc<Load>, name: usize) {
        let mut round = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let key = format!("client-{name}-{round}");
            let told = self.one(key.clone()).await;
            self.told.lock().unwrap().insert(key, told);
            round += 1;
        }
    }

    async fn one(&self, key: String) -> Told {
        let (ids, code) = (BTreeSet::new(), None);
        let mut told = Told { key, ids, lost: false, code, asked_again: 0 };
        let Some(id) = self.start(&mut told).await else { return told };
        // Some send the same again, to whomever.
        if self.draw().is_multiple_of(4) {
            self.start(&mut told).await;
        }
        let path = format!("/v1/sessions/{id}");
        let manner = self.draw() % 8;
        if manner != 0 {
            let wait = format!("{path}?wait=ready&timeout_ms=5000");
            let Some(session) = self.ask(Method::GET, &wait, &mut told).await else { return told };
            tokio::time::sleep(Duration::from_millis(self.draw() % 1500)).await;
            let machine = session.machine.unwrap_or_default();
            if manner == 1
                && let Some(agent) = self.provider.agent(&machine)
            {
                agent.exit_bot(0);
            } else {
                self.ask(Method::DELETE, &path, &mut told).await;
            }
        } else {
            // It hangs up in the middle of the start.
            self.ask(Method::DELETE, &path, &mut told).await;
        }
        let wait = format!("{path}?wait=ended&timeout_ms=5000");
        let ended = self.ask(Method::GET, &wait, &mut told).await;
        told.code = ended.and_then(|session| session.end_reason).map(|why| why.code);
        told
    }

    async fn start(&self, told: &mut Told) -> Option<String> {
        let body = json!({ "bot": "parrot", "transport": "fake" });
        let began = Instant::now();
        while began.elapsed() < GIVE_UP {
            let request = self.request(Method::POST, "/start").json(&body);
            if let Ok(answer) = request.header("idempotency-key", &told.key).send().await
                && answer.status() == StatusCode::OK
                && let Some(id) = answer.headers().get("x-callbox-session-id")
            {
                let id = id.to_str().unwrap().to_owned();
                told.ids.insert(id.clone());
                return Some(id);
            }
            told.asked_again += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// Asks until there is an answer that says how the session is.
    async fn ask(&self, method: Method, path: &str, told: &mut Told) -> Option<Session> {
        let began = Instant::now();
        while began.elapsed() < GIVE_UP {
            if let Ok(answer) = self.request(method.clone(), path).send().await {
                let status = answer.status();
                let text = answer.text().await.unwrap_or_default();
                if status.is_success()
                    && let Ok(session) = serde_json::from_str(&text)
                {
                    return Some(session);
                }
                if status == StatusCode::NOT_FOUND {
                    told.lost = true;
                    return None;
                }
                let code = serde_json::from_str::<Value>(&text).unwrap_or_default();
                if code["code"] == "not-yet" {
                    continue;
                }
            }
            told.asked_again += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// To whichever dispatcher comes first.
    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let address = {
            let addresses = self.addresses.lock().unwrap();
            addresses[usize::try_from(self.draw() % addresses.len() as u64).unwrap()].clone()
        };
        let url = format!("http://{address}{path}");
        self.http.request(method, url).bearer_auth(&self.private).timeout(PATIENCE)
    }
}
