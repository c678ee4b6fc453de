//! One session, as a client sees it: start, join, ask, hang up.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::clock::Probe;

/// How long a clone may take until its bot answers, on a host with other things to do.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often each is asked for the time. The quickest answer says most.
const PROBES: usize = 8;

/// What one clone said.
pub struct Seen {
    /// Its draws and its names, by what they are of.
    pub drawn: Value,
    /// What its template had drawn.
    pub template: Value,
    /// How far its clock is off, by the quickest of several answers.
    pub clock: Probe,
    /// From the request to the bot's first answer.
    pub answered: Duration,
    /// What its machine came from: `clone` or `reserve`.
    pub start: String,
}

/// Starts a session of `bot` and asks it as soon as it is ready.
pub fn ask(url: &str, bot: &str) -> anyhow::Result<Seen> {
    let began = Instant::now();
    let host = url.strip_prefix("http://").context("the dispatcher serves plain HTTP")?;
    let (id, session) = start(host, bot)?;
    let text = |key: &str| session[key].as_str().with_context(|| format!("no {key}: {session}"));
    let mut wire = join(host, text("wsUrl")?, text("token")?)?;
    let said: Value = serde_json::from_str(&question(&mut wire, "who")?)?;
    let answered = began.elapsed();
    let mut probes = (0..PROBES).map(|_| probe(&mut wire)).collect::<anyhow::Result<Vec<_>>>()?;
    probes.sort_by_key(|probe| probe.uncertain);
    let (_, about) = request(host, &format!("GET /v1/sessions/{id}"), "")?;
    // Hanging up ends the session, and with it the machine.
    wire.close(None)?;
    while wire.read().is_ok() {}
    Ok(Seen {
        drawn: said["drawn"].clone(),
        template: said["template"].clone(),
        clock: probes.swap_remove(0),
        answered,
        start: about["start"].as_str().unwrap_or_default().to_owned(),
    })
}

/// The session's id, and how to join it.
fn start(host: &str, bot: &str) -> anyhow::Result<(String, Value)> {
    let (head, answer) = request(host, "POST /start", &json!({ "bot": bot }).to_string())?;
    let id = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-callbox-session-id").then(|| value.trim().to_owned())
    });
    Ok((id.context("the answer does not name its session")?, answer))
}

/// The head and the body of an answer.
fn request(host: &str, what: &str, body: &str) -> anyhow::Result<(String, Value)> {
    let mut stream = connect(host)?;
    write!(
        stream,
        "{what} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("{what} answers {}: {body}", head.lines().next().unwrap_or_default());
    }
    let body = serde_json::from_str(body);
    Ok((head.to_owned(), body.with_context(|| format!("{what} does not answer with JSON"))?))
}

fn join(host: &str, ws_url: &str, token: &str) -> anyhow::Result<WebSocket<TcpStream>> {
    let stream = connect(host)?;
    stream.set_nodelay(true)?;
    let opened = tungstenite::client(format!("{ws_url}?token={token}"), stream);
    // Its own error has the request in it, and so the token.
    Ok(opened.map_err(|_| anyhow::anyhow!("{ws_url} does not open"))?.0)
}

fn connect(host: &str) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(host).with_context(|| format!("cannot reach {host}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn question(wire: &mut WebSocket<TcpStream>, text: &str) -> anyhow::Result<String> {
    wire.send(Message::text(text))?;
    loop {
        match wire.read().with_context(|| format!("no answer to {text:?}"))? {
            Message::Text(answer) => return Ok(answer.as_str().to_owned()),
            Message::Close(frame) => bail!("the line was closed: {frame:?}"),
            _ => {}
        }
    }
}

fn probe(wire: &mut WebSocket<TcpStream>) -> anyhow::Result<Probe> {
    let sent = now()?;
    let told = question(wire, "time")?;
    let told: i128 = told.parse().with_context(|| format!("{told:?} is no time"))?;
    Ok(Probe::new(sent, told, now()?))
}

fn now() -> anyhow::Result<i128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as i128)
}
