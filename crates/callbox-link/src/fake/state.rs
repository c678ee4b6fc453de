use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callbox_protocol::agent::{
    AgentEvent, AgentEventKind, Clock, LogLine, LogStream, Phase, Prepare, SessionData, Wake,
    Warning,
};
use callbox_protocol::join::Rejoin;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Script;

/// What was asked of a [`FakeAgent`](super::FakeAgent) so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Accepted hellos that led to a connection.
    pub connections: u32,
    /// Bodies of `POST /v1/prepare`.
    pub prepares: Vec<Prepare>,
    /// Calls of `POST /v1/freeze`.
    pub freezes: u32,
    /// Bodies of `POST /v1/wake`.
    pub wakes: Vec<Wake>,
    /// Bodies of `POST /v1/rejoin`.
    pub rejoin: Vec<Rejoin>,
    /// Bodies of `POST /v1/clock`.
    pub clocks: Vec<Clock>,
    /// Bodies of `POST /v1/session`.
    pub sessions: Vec<SessionData>,
    /// Bodies of `POST /v1/warn`.
    pub warnings: Vec<Warning>,
    /// Graces of `POST /v1/stop`.
    pub stops: Vec<Duration>,
    /// Tunnels that were opened.
    pub tunnels: u32,
    /// Websockets that were opened: path with query.
    pub websockets: Vec<String>,
    /// Websockets that have ended.
    pub websockets_closed: u32,
    /// Offers and candidates: method and body.
    pub signals: Vec<String>,
    /// Whether the bot has ended.
    pub bot_exited: bool,
}

/// One fake machine.
pub(super) struct State {
    pub(super) script: Script,
    pub(super) stopped: CancellationToken,
    /// Cancelled when the bot's process ends.
    pub(super) bot: CancellationToken,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

struct Inner {
    phase: Phase,
    seen: Seen,
    events: Vec<Vec<u8>>,
    logs: Vec<Vec<u8>>,
    ready: bool,
    cut: CancellationToken,
    websockets: CancellationToken,
}

impl State {
    pub(super) fn new(script: Script) -> Self {
        let phase = script.phase;
        Self {
            script,
            stopped: CancellationToken::new(),
            bot: CancellationToken::new(),
            inner: Mutex::new(Inner {
                phase,
                seen: Seen::default(),
                events: Vec::new(),
                logs: Vec::new(),
                ready: false,
                cut: CancellationToken::new(),
                websockets: CancellationToken::new(),
            }),
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().phase
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    pub(super) fn seen(&self) -> Seen {
        self.lock().seen.clone()
    }

    /// Writes down that something was asked.
    pub(super) fn note(&self, write: impl FnOnce(&mut Seen)) {
        write(&mut self.lock().seen);
        self.wake_readers();
    }

    pub(super) async fn wait_for(&self, what: impl Fn(&Seen) -> bool) -> Seen {
        let mut changes = self.changes();
        loop {
            let seen = self.seen();
            if what(&seen) || changes.changed().await.is_err() {
                return seen;
            }
        }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn event(&self, kind: AgentEventKind) {
        let mut inner = self.lock();
        if kind == AgentEventKind::Ready && std::mem::replace(&mut inner.ready, true) {
            return;
        }
        let seq = inner.events.len() as u64 + 1;
        inner.events.push(line(&AgentEvent { seq, kind }));
        drop(inner);
        self.wake_readers();
    }

    pub(super) fn bot_exit(&self, code: Option<i32>, signal: Option<i32>, out_of_memory: bool) {
        let mut inner = self.lock();
        if std::mem::replace(&mut inner.seen.bot_exited, true) {
            return;
        }
        inner.phase = Phase::Over;
        drop(inner);
        self.event(AgentEventKind::BotExited { code, signal, out_of_memory });
        self.bot.cancel();
    }

    pub(super) fn log(&self, stream: LogStream, text: &str) {
        let mut inner = self.lock();
        let seq = inner.logs.len() as u64 + 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        inner.logs.push(line(&LogLine {
            seq,
            at_ms: now.unwrap_or_default().as_millis() as u64,
            stream,
            text: text.to_owned(),
        }));
        drop(inner);
        self.wake_readers();
    }

    pub(super) fn raw_log(&self, bytes: &[u8]) {
        self.lock().logs.push(bytes.to_vec());
        self.wake_readers();
    }

    /// The `index`th line of a stream, if it is there yet.
    pub(super) fn line(&self, which: Lines, index: usize) -> Option<Vec<u8>> {
        let inner = self.lock();
        let lines = match which {
            Lines::Events => &inner.events,
            Lines::Logs => &inner.logs,
        };
        lines.get(index).cloned()
    }

    pub(super) fn cut_token(&self) -> CancellationToken {
        self.lock().cut.clone()
    }

    pub(super) fn cut(&self) {
        std::mem::take(&mut self.lock().cut).cancel();
    }

    pub(super) fn websockets_token(&self) -> CancellationToken {
        self.lock().websockets.clone()
    }

    pub(super) fn break_websockets(&self) {
        std::mem::take(&mut self.lock().websockets).cancel();
    }

    fn wake_readers(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of the two streams of lines.
#[derive(Clone, Copy)]
pub(super) enum Lines {
    Events,
    Logs,
}

fn line(value: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}
