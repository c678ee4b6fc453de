//! Calls as a client makes them: start, join, ask, echo, hang up.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// How long a machine may take until its bot answers, on a host with other things to do.
const PATIENCE: Duration = Duration::from_secs(240);
/// What an echo carries: as much as 20 ms of speech.
const ECHO_BYTES: usize = 640;

/// The dispatcher's API.
pub struct Api {
    /// Host and port.
    pub at: String,
    pub key: String,
}

impl Api {
    /// Starts a session and joins it.
    pub fn call(&self, bot: &str) -> anyhow::Result<Call<'_>> {
        let session = self.http("POST", "/start", &self.key, Some(&json!({ "bot": bot })))?;
        let text = |key: &str| {
            session[key].as_str().map(str::to_owned).with_context(|| format!("no {key}: {session}"))
        };
        let token = text("token")?;
        let id = token.split('.').next().unwrap_or_default().to_owned();
        let stream = self.connect()?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{}/ws/{id}?token={token}", self.at);
        // Its own error has the request in it, and so the token.
        let opened = tungstenite::client(url, stream);
        let (wire, _) = opened.map_err(|_| anyhow::anyhow!("the call of {bot} does not open"))?;
        Ok(Call { api: self, id, token, wire, sent: 0 })
    }

    /// How long the dispatcher takes to say that it is there.
    pub fn healthz(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.http("GET", "/healthz", &self.key, None)?;
        Ok(began.elapsed())
    }

    fn http(
        &self,
        method: &str,
        path: &str,
        credential: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let (mut stream, host) = (self.connect()?, &self.at);
        let body = body.map(Value::to_string).unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Authorization: Bearer {credential}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end")?;
        if !head.starts_with("HTTP/1.1 200 ") {
            let status = head.lines().next().unwrap_or_default();
            bail!("{method} {path} answers {status}: {body}");
        }
        Ok(serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream =
            TcpStream::connect(&self.at).with_context(|| format!("cannot reach {}", self.at))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

/// A live call.
pub struct Call<'a> {
    api: &'a Api,
    pub id: String,
    token: String,
    wire: WebSocket<TcpStream>,
    sent: u64,
}

impl Call<'_> {
    /// Asks the probe something, and waits for its answer.
    pub fn ask(&mut self, question: &Value) -> anyhow::Result<Value> {
        self.say(question)?;
        match self.heard().with_context(|| format!("no answer to {question}"))? {
            Message::Text(answer) => Ok(serde_json::from_str(answer.as_str())?),
            other => bail!("{other:?} is no answer to {question}"),
        }
    }

    /// Asks the probe something that it may not live to answer.
    pub fn say(&mut self, question: &Value) -> anyhow::Result<()> {
        Ok(self.wire.send(Message::text(question.to_string()))?)
    }

    /// Sends one message there and back; an error if it is lost or changed.
    pub fn echo(&mut self) -> anyhow::Result<Duration> {
        self.sent += 1;
        let mut message = vec![0; ECHO_BYTES];
        message[..8].copy_from_slice(&self.sent.to_be_bytes());
        let began = Instant::now();
        self.wire.send(Message::binary(message.clone()))?;
        match self.heard().context("the echo was lost")? {
            Message::Binary(back) if back[..] == message[..] => Ok(began.elapsed()),
            other => bail!("message {} came back as {other:?}", self.sent),
        }
    }

    fn heard(&mut self) -> anyhow::Result<Message> {
        loop {
            match self.wire.read()? {
                message @ (Message::Text(_) | Message::Binary(_)) => return Ok(message),
                Message::Close(frame) => bail!("the line was closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The session, as the dispatcher sees it.
    pub fn view(&self) -> anyhow::Result<Value> {
        self.api.http("GET", &format!("/v1/sessions/{}", self.id), &self.token, None)
    }

    /// The session, once it has ended or after so many milliseconds.
    pub fn end(&self, within_ms: u64) -> anyhow::Result<Value> {
        let path = format!("/v1/sessions/{}?wait=ended&timeout_ms={within_ms}", self.id);
        self.api.http("GET", &path, &self.token, None)
    }

    /// Hangs up, which ends the session and with it the machine.
    pub fn hang_up(mut self) -> anyhow::Result<Value> {
        let _ = self.wire.close(None);
        while self.wire.read().is_ok() {}
        self.end(60_000)
    }
}
