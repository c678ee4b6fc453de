//! One session as its client lives it: start, join, talk, end, through whatever happens meanwhile.

use std::{
    collections::HashSet,
    io::ErrorKind,
    net::TcpStream,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tungstenite::{HandshakeError, Message, WebSocket};

use super::{
    api::{Answer, Api, PATIENCE},
    echo::{Heard, frame},
};

/// Between two frames.
const FRAME: Duration = Duration::from_millis(20);
/// Frames that may be under way: what is said before the bot is ready is held, up to a bound.
const UNDER_WAY: u64 = 500;
const PAUSE: Duration = Duration::from_millis(20);

/// Where a session stands, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not begun.
    Before,
    /// The start is requested, and not acknowledged yet.
    Request,
    /// Acknowledged; the bot was not heard yet.
    Start,
    Call,
    /// Hung up or ended by request, and not at its end yet.
    End,
    Over,
}

impl Phase {
    pub const ALL: [Phase; 6] =
        [Phase::Before, Phase::Request, Phase::Start, Phase::Call, Phase::End, Phase::Over];

    pub fn name(self) -> &'static str {
        match self {
            Phase::Before => "before",
            Phase::Request => "request",
            Phase::Start => "start",
            Phase::Call => "call",
            Phase::End => "end",
            Phase::Over => "over",
        }
    }
}

/// How one is to be used.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For the start, so that it may be repeated.
    pub key: String,
    pub after: Duration,
    pub how: How,
    /// Ended by request; else the client hangs up.
    pub delete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nobody joins; it is ended by request so long after it was acknowledged.
    NeverJoined(Duration),
    /// A call of so long.
    Call(Duration),
    /// A call until [`Line::hang_up`] is set.
    UntilTold,
}

/// What everybody knows of what is done to the host.
#[derive(Default)]
pub struct Events {
    /// Odd from a dispatcher's death until the next one has served for a moment.
    pub window: AtomicU64,
    /// Sessions whose machine or relay was killed: their calls may break.
    pub victims: Mutex<HashSet<String>>,
}

/// What others see of a session, and may tell its client.
#[derive(Default)]
pub struct Line {
    phase: AtomicU8,
    pub id: OnceLock<String>,
    pub hang_up: AtomicBool,
    pub request_took: OnceLock<Duration>,
    /// From the request to the bot's first answer.
    pub answered: OnceLock<Duration>,
    pub end_took: OnceLock<Duration>,
}

impl Line {
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    fn is(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub id: String,
    /// Start requests that were cut by a death and repeated.
    pub cut_requests: u64,
    /// A repeated start gave another session.
    pub other_session: Option<String>,
    /// Connections that broke before the bot was heard, after which the client came again.
    pub came_again: u64,
    pub heard: Heard,
    /// Frames that were sent and did not come back, though the line was good.
    pub unanswered: u64,
    /// Why the call ended, if not as planned.
    pub broken: Option<String>,
    /// It was known, and then it was not.
    pub unknown: bool,
    pub code: String,
    /// The code that it should end with.
    pub planned: &'static str,
}

enum Ended {
    AsPlanned,
    Broken(String),
}

/// Lives it from beginning to end.
pub fn live(api: &Api, events: &Events, line: &Line, plan: &Plan) -> anyhow::Result<Outcome> {
    std::thread::sleep(plan.after);
    let began = Instant::now();
    line.is(Phase::Request);
    let by_request = plan.delete || matches!(plan.how, How::NeverJoined(_));
    let planned = if by_request { "stopped" } else { "client-left" };
    let mut outcome = Outcome { planned, ..Outcome::default() };
    let start = json!({ "bot": "tiny", "body": { "key": plan.key } }).to_string();
    let session = request(api, plan, &start, &mut outcome)?;
    let _ = line.id.set(outcome.id.clone());
    let _ = line.request_took.set(began.elapsed());
    line.is(Phase::Start);
    let caller = Caller { api, events, line, plan, session: &session, began };
    // Open until the session was ended by request.
    let mut _wire = None;
    match plan.how {
        How::NeverJoined(time) => std::thread::sleep(time),
        _ => _wire = caller.call(&mut outcome)?,
    }
    line.is(Phase::End);
    let ending = Instant::now();
    if by_request {
        let path = format!("/v1/sessions/{}", outcome.id);
        outcome.unknown = api.insist("DELETE", &path, None, "")?.status == 404;
    }
    caller.wait_for_the_end(&mut outcome)?;
    let _ = line.end_took.set(ending.elapsed());
    line.is(Phase::Over);
    Ok(outcome)
}

/// Starts it, however often that takes. Who had to repeat it asks once more: it is one session.
fn request(api: &Api, plan: &Plan, start: &str, outcome: &mut Outcome) -> anyhow::Result<Value> {
    let ask = || -> anyhow::Result<(Value, String, u64)> {
        let Answer { status, body, cut } = api.insist("POST", "/start", Some(&plan.key), start)?;
        let id = body["token"].as_str().and_then(|token| token.split('.').next());
        let id = id.with_context(|| format!("POST /start answers {status}: {body}"))?.to_owned();
        Ok((body, id, cut))
    };
    let (session, id, cut) = ask()?;
    outcome.cut_requests = cut;
    if cut > 0 {
        let (_, again, _) = ask()?;
        outcome.other_session = (again != id).then_some(again);
    }
    outcome.id = id;
    Ok(session)
}

struct Caller<'a> {
    api: &'a Api,
    events: &'a Events,
    line: &'a Line,
    plan: &'a Plan,
    session: &'a Value,
    began: Instant,
}

impl Caller<'_> {
    fn is_a_victim(&self, id: &str) -> bool {
        self.events.victims.lock().expect("nobody panics with it").contains(id)
    }

    /// Joins and talks. What is still open afterwards is to be closed by an end by request.
    fn call(&self, outcome: &mut Outcome) -> anyhow::Result<Option<WebSocket<TcpStream>>> {
        loop {
            let Some(mut wire) = self.join(outcome)? else { return Ok(None) };
            let mut heard = Heard::default();
            let mut sent = 0;
            let ended = self.talk(&mut wire, &mut heard, &mut sent)?;
            let was_heard = heard.next > 0;
            let mut open = None;
            match ended {
                Ended::AsPlanned => {
                    outcome.unanswered = sent - heard.next;
                    if self.plan.delete {
                        open = Some(wire);
                    } else {
                        self.line.is(Phase::End);
                        hang_up(wire)?;
                    }
                }
                // Who was not heard yet may not have been in, and comes again.
                Ended::Broken(_) if !was_heard => {
                    outcome.came_again += 1;
                    continue;
                }
                Ended::Broken(why) => outcome.broken = Some(why),
            }
            outcome.heard = heard;
            return Ok(open);
        }
    }

    /// Opens the websocket. None where the session is over.
    fn join(&self, outcome: &mut Outcome) -> anyhow::Result<Option<WebSocket<TcpStream>>> {
        let text = |key: &str| self.session[key].as_str().with_context(|| format!("no {key}"));
        let url = format!("{}?token={}", text("wsUrl")?, text("token")?);
        let began = Instant::now();
        loop {
            if let Ok(stream) = TcpStream::connect(&self.api.address) {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                match tungstenite::client(&url, stream) {
                    Ok((wire, _)) => return Ok(Some(wire)),
                    Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                        let body = answer.body().as_deref().unwrap_or_default();
                        let body: Value = serde_json::from_slice(body).unwrap_or_default();
                        if body["code"] == "session-over" {
                            outcome.broken = Some(format!("it is over: {}", body["error"]));
                            return Ok(None);
                        }
                        if body["code"] == "unknown-session" {
                            outcome.unknown = true;
                            return Ok(None);
                        }
                    }
                    Err(_) => {}
                }
            }
            if began.elapsed() > PATIENCE {
                bail!("session {} cannot be joined within {} s", outcome.id, PATIENCE.as_secs());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Says a frame every 20 ms and listens, until it is time and all that was said came back.
    fn talk(
        &self,
        wire: &mut WebSocket<TcpStream>,
        heard: &mut Heard,
        sent: &mut u64,
    ) -> anyhow::Result<Ended> {
        let mut due = Instant::now();
        let (mut first, mut last_news) = (None, Instant::now());
        loop {
            let now = Instant::now();
            let over = match (self.plan.how, first) {
                (How::Call(time), Some(first)) => now - first > time,
                (How::UntilTold, Some(_)) => self.line.hang_up.load(Ordering::Acquire),
                _ => false,
            };
            if over && (heard.next >= *sent || last_news.elapsed() > Duration::from_secs(60)) {
                return Ok(Ended::AsPlanned);
            }
            if !over && now >= due && *sent < heard.next + UNDER_WAY {
                if let Err(error) = wire.send(Message::binary(frame(*sent))) {
                    return Ok(Ended::Broken(error.to_string()));
                }
                *sent += 1;
                due = (due + FRAME).max(now);
            }
            let wait = due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            wire.get_ref().set_read_timeout(Some(wait.min(FRAME)))?;
            match wire.read() {
                Ok(Message::Binary(bytes)) => {
                    let window = self.events.window.load(Ordering::Acquire);
                    last_news = Instant::now();
                    heard.note(&bytes, window, last_news);
                    if first.is_none() {
                        first = Some(last_news);
                        let _ = self.line.answered.set(self.began.elapsed());
                        self.line.is(Phase::Call);
                    }
                }
                Ok(Message::Close(frame)) => {
                    return Ok(Ended::Broken(format!("it was closed: {frame:?}")));
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Ok(Ended::Broken(error.to_string())),
            }
            if last_news.elapsed() > PATIENCE {
                return Ok(Ended::Broken("nothing is heard any more".to_owned()));
            }
        }
    }

    fn wait_for_the_end(&self, outcome: &mut Outcome) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let Some(session) = self.api.session(&outcome.id)? else {
                outcome.unknown = true;
                return Ok(());
            };
            if session["state"] == "ended" {
                outcome.code = session["end_reason"]["code"].as_str().unwrap_or("?").to_owned();
                if self.is_a_victim(&outcome.id) {
                    outcome.broken = None;
                    outcome.unanswered = 0;
                } else if let Some(why) = &mut outcome.broken {
                    why.push_str(&format!(" (ended: {})", session["end_reason"]));
                }
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("it does not end within {} s: {session}", PATIENCE.as_secs());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Closes as good clients do.
fn hang_up(mut wire: WebSocket<TcpStream>) -> anyhow::Result<()> {
    wire.get_ref().set_read_timeout(Some(Duration::from_secs(30)))?;
    // Whoever hung up first, it is over.
    let _ = wire.close(None);
    while wire.read().is_ok() {}
    Ok(())
}
