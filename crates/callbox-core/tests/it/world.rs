//! Sessions and events for the tests of this crate.

use std::{collections::BTreeMap, time::Duration};

use callbox_core::{
    BotExit, EndCode, EndReason, Event, EventKind, Limits, MachineFacts, ReadyWhen, Restarts,
    Session, SessionId, SessionSpec, Time, Usage, UsageAt, UsageSeen,
};
use serde_json::Value;

pub(crate) const LIMITS: Limits = Limits {
    queued: Duration::from_secs(5),
    start: Duration::from_secs(10),
    ready: Duration::from_secs(20),
    join: Duration::from_secs(30),
    live: Duration::from_secs(600),
    alone: Duration::from_secs(40),
    warn: Duration::from_secs(60),
    ending: Duration::from_secs(15),
};

pub(crate) fn at(seconds: i64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

pub(crate) fn event(seconds: i64, kind: EventKind) -> Event {
    Event { at: at(seconds), kind }
}

/// Its bot may die twice within 100 seconds.
pub(crate) const RESTARTS: Restarts = Restarts { most: 2, within: Duration::from_secs(100) };

pub(crate) fn spec() -> SessionSpec {
    SessionSpec {
        id: SessionId::parse("6f9619ff-8b86-4d01-b42d-00cf4fc964ff").expect("a uuid"),
        bot: "parrot".into(),
        transport: "websocket".into(),
        provider: "fake".into(),
        body: Value::Null,
        room_options: Value::Null,
        base_url: "ws://127.0.0.1:7860".into(),
        labels: BTreeMap::new(),
        version: None,
        place: String::new(),
        limits: LIMITS,
        ready_when: ReadyWhen::Bot,
        restarts: Restarts::NONE,
    }
}

/// A bot's death ends it.
pub(crate) fn accepted() -> Session {
    Session::accepted(spec(), at(0))
}

/// A bot's death may bring it a fresh machine.
pub(crate) fn tenacious() -> Session {
    Session::accepted(SessionSpec { restarts: RESTARTS, ..spec() }, at(0))
}

pub(crate) fn facts() -> MachineFacts {
    MachineFacts {
        accelerator: "tcg".into(),
        start: "clone".into(),
        stages: Vec::new(),
        not_enforced: Vec::new(),
        price: None,
    }
}

pub(crate) fn stop() -> EndReason {
    EndReason::new(EndCode::Stopped, "stopped by a test")
}

/// One event of every kind, with the name it has in the table; about machine `n` where it is about
/// a machine.
pub(crate) fn every_event_of(n: u32) -> Vec<(&'static str, EventKind)> {
    let detail = || "a test".to_owned();
    let exited = |code, out_of_memory| EventKind::BotExited {
        incarnation: n,
        exit: BotExit { code, signal: None, out_of_memory },
    };
    vec![
        ("Admitted", EventKind::Admitted),
        ("MachineMade", EventKind::MachineMade { incarnation: n, id: "m-1".into() }),
        ("MachineStarted", EventKind::MachineStarted { incarnation: n, facts: facts() }),
        ("MachineFailed", EventKind::MachineFailed { incarnation: n, reason: start_failed() }),
        ("MachineLost", EventKind::MachineLost { incarnation: n, detail: detail() }),
        ("PlaceLost", EventKind::PlaceLost { detail: detail() }),
        ("RoomOpened", EventKind::RoomOpened),
        ("RoomFailed", EventKind::RoomFailed { detail: detail() }),
        ("BotReady", EventKind::BotReady { incarnation: n }),
        ("BotPresent", EventKind::BotPresent),
        ("BotNotReady", EventKind::BotNotReady { incarnation: n, detail: detail() }),
        ("BotExited(0)", exited(Some(0), false)),
        ("BotExited(1)", exited(Some(1), false)),
        ("BotExited(oom)", exited(None, true)),
        ("BotBroke", EventKind::BotBroke { incarnation: n, detail: detail() }),
        ("ClientJoined", EventKind::ClientJoined),
        ("ClientLeft", EventKind::ClientLeft { detail: detail() }),
        ("RoomEmpty", EventKind::RoomEmpty),
        ("ClientOverflow", EventKind::ClientOverflow { detail: detail() }),
        ("Audible", EventKind::Audible),
        ("WarningDelivered", EventKind::WarningDelivered),
        ("WarningFailed", EventKind::WarningFailed { detail: detail() }),
        ("Measured", EventKind::Measured(seen())),
        ("EndRequested", EventKind::EndRequested(stop())),
        ("TimePassed", EventKind::TimePassed),
        ("MachineDestroyed", EventKind::MachineDestroyed { incarnation: n }),
        ("RoomClosed", EventKind::RoomClosed),
    ]
}

fn seen() -> UsageSeen {
    UsageSeen::default().with(Usage { unique_bytes: 7, ..Usage::default() }, UsageAt::Ready)
}

fn start_failed() -> EndReason {
    EndReason::new(EndCode::StartFailed, "refused by a test")
}
