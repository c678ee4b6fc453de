//! Sessions and events for the tests of this crate.

use std::time::Duration;

use callbox_core::{
    BotExit, EndCode, EndReason, Event, EventKind, Limits, MachineFacts, Session, SessionId, Time,
    Usage, UsageAt, UsageSeen,
};
use serde_json::Value;

pub(crate) const LIMITS: Limits = Limits {
    queued: Duration::from_secs(5),
    start: Duration::from_secs(10),
    ready: Duration::from_secs(20),
    join: Duration::from_secs(30),
    live: Duration::from_secs(600),
    warn: Duration::from_secs(60),
    ending: Duration::from_secs(15),
};

pub(crate) fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

pub(crate) fn event(seconds: i64, kind: EventKind) -> Event {
    Event { at: at(seconds), kind }
}

pub(crate) fn accepted() -> Session {
    let id = SessionId::parse("6f9619ff-8b86-4d01-b42d-00cf4fc964ff").expect("a uuid");
    let (bot, transport, provider) = ("parrot".into(), "websocket".into(), "fake".into());
    let base_url = "ws://127.0.0.1:7860".into();
    Session::accepted(id, bot, transport, provider, Value::Null, base_url, LIMITS, at(0))
}

pub(crate) fn facts() -> MachineFacts {
    MachineFacts {
        accelerator: "tcg".into(),
        start: "clone".into(),
        stages: Vec::new(),
        not_enforced: Vec::new(),
    }
}

pub(crate) fn stop() -> EndReason {
    EndReason::new(EndCode::Stopped, "stopped by a test")
}

/// One event of every kind, with the name it has in the table.
pub(crate) fn every_event() -> Vec<(&'static str, EventKind)> {
    let detail = || "a test".to_owned();
    let exit = |code, out_of_memory| BotExit { code, signal: None, out_of_memory };
    vec![
        ("Admitted", EventKind::Admitted),
        ("MachineStarted", EventKind::MachineStarted { incarnation: 1, facts: facts() }),
        ("MachineFailed", EventKind::MachineFailed { incarnation: 1, reason: start_failed() }),
        ("MachineLost", EventKind::MachineLost { incarnation: 1, detail: detail() }),
        ("RoomOpened", EventKind::RoomOpened),
        ("RoomFailed", EventKind::RoomFailed { detail: detail() }),
        ("BotReady", EventKind::BotReady),
        ("BotNotReady", EventKind::BotNotReady { detail: detail() }),
        ("BotExited(0)", EventKind::BotExited(exit(Some(0), false))),
        ("BotExited(1)", EventKind::BotExited(exit(Some(1), false))),
        ("BotExited(oom)", EventKind::BotExited(exit(None, true))),
        ("ClientJoined", EventKind::ClientJoined),
        ("ClientLeft", EventKind::ClientLeft { detail: detail() }),
        ("ClientOverflow", EventKind::ClientOverflow { detail: detail() }),
        ("Audible", EventKind::Audible),
        ("WarningDelivered", EventKind::WarningDelivered),
        ("WarningFailed", EventKind::WarningFailed { detail: detail() }),
        ("Measured", EventKind::Measured(seen())),
        ("EndRequested", EventKind::EndRequested(stop())),
        ("TimePassed", EventKind::TimePassed),
        ("MachineDestroyed", EventKind::MachineDestroyed),
        ("RoomClosed", EventKind::RoomClosed),
    ]
}

fn seen() -> UsageSeen {
    UsageSeen::default().with(Usage { unique_bytes: 7, ..Usage::default() }, UsageAt::Ready)
}

fn start_failed() -> EndReason {
    EndReason::new(EndCode::StartFailed, "refused by a test")
}
