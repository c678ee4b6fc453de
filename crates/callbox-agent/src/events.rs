use std::sync::{Mutex, MutexGuard, PoisonError};

use callbox_protocol::agent::{AgentEvent, AgentEventKind};
use tokio::sync::watch;

use crate::feed::{Feed, write_line};

/// What happened in this machine. There are only ever a handful of events.
pub(crate) struct Events {
    past: Mutex<Past>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Past {
    events: Vec<AgentEvent>,
    /// Whether the bot became ready, or will not.
    settled: bool,
    over: bool,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { past: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// The bot can take the call. Only the first word about readiness counts.
    pub(crate) fn ready(&self) {
        self.settle(AgentEventKind::Ready);
    }

    /// The bot cannot take the call. Only the first word about readiness counts.
    pub(crate) fn not_ready(&self, detail: String) {
        self.settle(AgentEventKind::NotReady { detail });
    }

    /// The bot has ended. Nothing comes after this.
    pub(crate) fn over(&self, code: Option<i32>, signal: Option<i32>, out_of_memory: bool) {
        let mut past = self.past();
        if !std::mem::replace(&mut past.over, true) {
            let kind = AgentEventKind::BotExited { code, signal, out_of_memory };
            self.push(past, kind);
        }
    }

    fn settle(&self, kind: AgentEventKind) {
        let mut past = self.past();
        if !past.over && !std::mem::replace(&mut past.settled, true) {
            self.push(past, kind);
        }
    }

    fn push(&self, mut past: MutexGuard<'_, Past>, kind: AgentEventKind) {
        let seq = past.events.len() as u64 + 1;
        past.events.push(AgentEvent { seq, kind });
        drop(past);
        self.changed.send_replace(());
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed for Events {
    fn read(&self, after: u64, _limit: usize) -> (Vec<u8>, u64) {
        let past = self.past();
        let (mut out, mut last) = (Vec::new(), after);
        for event in past.events.iter().filter(|event| event.seq > after) {
            write_line(&mut out, event);
            last = event.seq;
        }
        (out, last)
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_said_once_and_nothing_follows_the_end() {
        let events = Events::new();
        events.ready();
        events.not_ready("too late".to_owned());
        events.over(Some(0), None, false);
        events.over(Some(1), None, false);
        events.ready();
        let (text, last) = events.read(0, 0);
        let text = String::from_utf8(text).expect("text");
        assert_eq!(last, 2);
        assert_eq!(
            text,
            "{\"seq\":1,\"event\":\"ready\"}\n{\"seq\":2,\"event\":\"bot-exited\",\
             \"code\":0,\"signal\":null,\"out_of_memory\":false}\n"
        );
        assert_eq!(events.read(2, 0), (Vec::new(), 2));
    }
}
