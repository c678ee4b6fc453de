//! A LiveKit server of a test's own, or one that is given by its address.

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, routing::post};
use http::HeaderMap;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

/// Where the server's program is; `cargo xtask test rooms` builds one.
const PROGRAM: &str = "CALLBOX_TEST_LIVEKIT_SERVER";
/// Or where a server is: its address, key and secret.
const GIVEN: [&str; 3] =
    ["CALLBOX_TEST_LIVEKIT_URL", "CALLBOX_TEST_LIVEKIT_KEY", "CALLBOX_TEST_LIVEKIT_SECRET"];

const KEY: &str = "callbox-test";
const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";
const BEGIN: Duration = Duration::from_secs(30);
/// Its ports may be taken between our look and its own.
const ATTEMPTS: u32 = 5;

/// A server; stopped when it is dropped, if it is ours.
pub(crate) struct Server {
    url: String,
    key: String,
    secret: String,
    process: Option<Child>,
    webhooks: UnboundedReceiver<(HeaderMap, Bytes)>,
    http: reqwest::Client,
}

impl Server {
    /// None, and said so loudly, where there is none to be had.
    pub(crate) async fn start() -> Option<Server> {
        // One of them is enough for all tests.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (sender, webhooks) = unbounded_channel();
        if let [Ok(url), Ok(key), Ok(secret)] = GIVEN.map(std::env::var) {
            return Some(Server { url, key, secret, process: None, webhooks, http });
        }
        let Some(program) = std::env::var_os(PROGRAM) else {
            // Not by `eprintln!`, which is not seen of a test that passes.
            let _ = writeln!(
                std::io::stderr(),
                "\n!!! NOT TESTED with LiveKit: neither {PROGRAM} nor {GIVEN:?} is set.\n\
                 !!! `cargo xtask test rooms` builds a server and runs this test with it.\n"
            );
            return None;
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let hooks = format!("http://{}/", listener.local_addr().expect("an address"));
        let take = move |headers: HeaderMap, body: Bytes| async move {
            let _ = sender.send((headers, body));
        };
        tokio::spawn(
            async move { axum::serve(listener, Router::new().route("/", post(take))).await },
        );
        let (key, secret) = (KEY.to_owned(), SECRET.to_owned());
        let mut server = Server { url: String::new(), key, secret, process: None, webhooks, http };
        for _ in 0..ATTEMPTS {
            let port = free_port();
            let config = format!(
                "port: {port}\nbind_addresses: [127.0.0.1]\nkeys: {{ {KEY}: {SECRET} }}\n\
                 rtc: {{ tcp_port: {}, udp_port: {}, node_ip: 127.0.0.1 }}\n\
                 webhook: {{ api_key: {KEY}, urls: [\"{hooks}\"] }}\nlogging: {{ level: warn }}\n",
                free_port(),
                free_port(),
            );
            let mut process = Command::new(&program);
            process.env("LIVEKIT_CONFIG", config).stdin(Stdio::null());
            server.process = Some(process.spawn().expect("the server's program runs"));
            server.url = format!("ws://127.0.0.1:{port}");
            if server.begins().await {
                return Some(server);
            }
            server.end();
        }
        panic!("LiveKit's server does not start");
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// The next webhook; none where the server is not ours.
    pub(crate) async fn webhook(&mut self) -> Option<(HeaderMap, Bytes)> {
        self.process.as_ref()?;
        self.webhooks.recv().await
    }

    /// What it says to a client that would join with this token.
    pub(crate) async fn validate(&self, token: &str) -> (u16, String) {
        let url = format!("{}/rtc/validate?access_token={token}&auto_subscribe=1", self.api());
        let answer = self.http.get(url).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }

    /// What it says to somebody who would end a room with this token.
    pub(crate) async fn delete_room_with(&self, token: &str, room: &str) -> u16 {
        let url = format!("{}/twirp/livekit.RoomService/DeleteRoom", self.api());
        let body = serde_json::json!({ "room": room });
        let answer = self.http.post(url).bearer_auth(token).json(&body).send();
        answer.await.expect("an answer").status().as_u16()
    }

    fn api(&self) -> String {
        self.url.replacen("ws", "http", 1)
    }

    /// Whether it serves; it does not when it has ended.
    async fn begins(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < BEGIN {
            if self.http.get(self.api()).send().await.is_ok_and(|said| said.status().is_success()) {
                return true;
            }
            let ended = self.process.as_mut().is_none_or(|one| !matches!(one.try_wait(), Ok(None)));
            if ended {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn free_port() -> u16 {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    taken.local_addr().expect("an address").port()
}
