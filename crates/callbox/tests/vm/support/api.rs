//! The dispatcher's API, asked with as little as possible between test and wire.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{Dispatcher, PATIENCE};

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

/// A session that was started, and how its client gets in.
#[derive(Clone, Debug)]
pub struct Started {
    pub id: String,
    pub ws_url: String,
    pub token: String,
}

impl Dispatcher<'_> {
    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &Value::Null).await
    }

    /// Starts a session of this bot and waits for nothing.
    pub async fn start(&self, bot: &str) -> Started {
        self.start_with(bot, Value::Null).await
    }

    /// The same with a body for the bot.
    pub async fn start_with(&self, bot: &str, body: Value) -> Started {
        let answer = self.ask("POST", "/start", &json!({ "bot": bot, "body": body })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = |key: &str| answer.body[key].as_str().unwrap().to_owned();
        let id = answer.head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("x-callbox-session-id").then(|| value.trim().to_owned())
        });
        Started { id: id.unwrap(), ws_url: text("wsUrl"), token: text("token") }
    }

    /// A session of an earlier dispatcher, which served at another port.
    pub fn taken_over(&self, session: &Started) -> Started {
        let ws_url = format!("ws://{}/ws/{}", self.address, session.id);
        Started { ws_url, ..session.clone() }
    }

    /// Asks for a session of this bot, whatever comes of it.
    pub async fn try_start(&self, bot: &str) -> Answer {
        self.ask("POST", "/start", &json!({ "bot": bot })).await
    }

    /// The session as it is.
    pub async fn session(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/sessions/{id}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// The session once `moment` (`started`, `ready`, `ended`) has come, or it has ended.
    pub async fn when(&self, moment: &str, id: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = format!("/v1/sessions/{id}?wait={moment}&timeout_ms=10000");
            let answer = self.get(&path).await;
            match answer.status {
                200 => return answer.body,
                504 => assert!(
                    Instant::now() < deadline,
                    "session {id} is not {moment}: {}",
                    self.session(id).await
                ),
                _ => panic!("{answer:?}"),
            }
        }
    }

    /// Waits for the end of a session and gives code and text of its reason.
    pub async fn end_of(&self, id: &str) -> (String, String) {
        let session = self.when("ended", id).await;
        assert_eq!(session["state"], "ended", "{session}");
        let reason = |key: &str| session["end_reason"][key].as_str().unwrap().to_owned();
        (reason("code"), reason("detail"))
    }

    /// It still does its work.
    pub async fn assert_alive(&self) {
        assert_eq!(self.get("/healthz").await.status, 200);
        assert_eq!(self.get("/readyz").await.status, 200);
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let asking = async {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let key = self.key.as_ref().map(|key| format!("Authorization: Bearer {key}\r\n"));
            let key = key.unwrap_or_default();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{key}\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                self.address,
                body.len(),
            );
            let mut stream = TcpStream::connect(&self.address).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Ok::<String, std::io::Error>(text)
        };
        let answer = timeout(Duration::from_secs(60), asking).await;
        let text = answer.unwrap_or_else(|_| panic!("{method} {path} hangs")).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: serde_json::from_str(body).unwrap_or(Value::Null),
        }
    }
}
