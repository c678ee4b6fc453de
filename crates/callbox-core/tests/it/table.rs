//! The whole behaviour of the core as one table, kept in `docs/session-table.md`.
//! After a change that is meant: `UPDATE_TABLES=1 cargo test -p callbox-core --test it`.

use std::fmt::Write as _;

use crate::world::{accepted, event, every_event_of, facts, stop, tenacious};
use callbox_core::{Applied, Denied, EventKind, Session, apply, owed};

/// A session in every state, reached by the events that lead there.
fn every_state() -> Vec<(&'static str, Session)> {
    let started = EventKind::MachineStarted { incarnation: 1, facts: facts() };
    let starting = after(&accepted(), &[EventKind::Admitted]);
    let room = after(&starting, &[EventKind::RoomOpened]);
    let joining = after(&room, &[started]);
    let ready = after(&joining, &[EventKind::BotReady { incarnation: 1 }]);
    let live = after(&ready, &[EventKind::ClientJoined]);
    let alone = after(&live, &[EventKind::RoomEmpty]);
    // 590 s of 600 are over, and the warning comes 60 s before the end.
    let due = match apply(&live, &event(591, EventKind::TimePassed)) {
        Ok(Applied::Changed(due)) => *due,
        other => panic!("the warning is due: {other:?}"),
    };
    let ending = after(&live, &[EventKind::EndRequested(stop())]);
    let gone = EventKind::MachineDestroyed { incarnation: 1 };
    let ended = after(&ending, &[gone, EventKind::RoomClosed]);
    vec![
        ("Queued", accepted()),
        ("Starting", starting),
        ("Joining", joining),
        ("Joining, ready", ready),
        ("Live", live.clone()),
        ("Live, warning due", due),
        ("Live, alone", alone),
        ("Live, restarts", Session { restarts: tenacious().restarts, ..live.clone() }),
        ("Starting, replaced", replaced(&live)),
        ("Ending", ending),
        ("Ended", ended),
    ]
}

/// Its bot died, and it may have a fresh machine.
fn replaced(live: &Session) -> Session {
    let live = Session { restarts: tenacious().restarts, ..live.clone() };
    after(&live, &[EventKind::MachineLost { incarnation: 1, detail: "a test".into() }])
}

fn after(session: &Session, kinds: &[EventKind]) -> Session {
    kinds.iter().fold(session.clone(), |session, kind| {
        match apply(&session, &event(1, kind.clone())).expect("the event is legal here") {
            Applied::Changed(next) => *next,
            Applied::Unchanged => session,
        }
    })
}

fn cell(session: &Session, kind: &EventKind) -> String {
    // Past every deadline of `world::LIMITS`, so that TimePassed shows what a deadline does.
    match apply(session, &event(10_000, kind.clone())) {
        Ok(Applied::Unchanged) => "·".into(),
        Ok(Applied::Changed(next)) => {
            let state = format!("{:?}", next.state.kind());
            match next.state.why().filter(|_| session.state.why().is_none()) {
                Some(why) => format!("**{state}** `{}`", why.code.as_str()),
                None if next.state.kind() == session.state.kind() => "noted".into(),
                None => format!("**{state}**"),
            }
        }
        Err(Denied::Ended | Denied::Ending) => "✗ over".into(),
        Err(Denied::NotAdmitted | Denied::NotGoing) => "✗ too early".into(),
        Err(Denied::Replaced) => "✗ replaced".into(),
        Err(Denied::OtherIncarnation) => "✗ other machine".into(),
    }
}

fn table() -> String {
    let states = every_state();
    let mut out = String::from(
        "# What may happen to a session\n\nGenerated from `callbox-core` by its test `table`; \
         do not edit.\n`·` already so, `noted` kept in the row without a change of state, `✗` denied.\n\n| event |",
    );
    for (name, _) in &states {
        let _ = write!(out, " {name} |");
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(states.len()));
    for (name, kind) in every_event_of(1) {
        let _ = write!(out, "\n| {name} |");
        for (_, session) in &states {
            let _ = write!(out, " {} |", cell(session, &kind));
        }
    }
    out.push_str("\n\n## What is owed\n\n| state | duties |\n|---|---|\n");
    for (name, session) in &states {
        let duties: Vec<String> = owed(session)
            .iter()
            .map(|duty| format!("{duty:?}").split('(').next().unwrap_or_default().to_owned())
            .collect();
        let duties = if duties.is_empty() { "nothing".into() } else { duties.join(", ") };
        let _ = writeln!(out, "| {name} | {duties} |");
    }
    out
}

#[test]
fn the_documented_table_is_what_the_core_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/session-table.md");
    let now = table();
    if std::env::var_os("UPDATE_TABLES").is_some() {
        std::fs::write(path, &now).expect("the table can be written");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == now,
        "docs/session-table.md is not what the core does; if the change is meant, run \
         UPDATE_TABLES=1 cargo test -p callbox-core --test it\n\n{now}"
    );
}

#[test]
fn an_event_about_an_earlier_machine_is_denied() {
    let starting = after(&accepted(), &[EventKind::Admitted]);
    let stale = EventKind::MachineStarted { incarnation: 7, facts: facts() };
    assert_eq!(apply(&starting, &event(2, stale)), Err(Denied::OtherIncarnation));
}

#[test]
fn the_first_reason_to_end_stays() {
    let starting = after(&accepted(), &[EventKind::Admitted]);
    let left = EventKind::ClientLeft { detail: "hung up".into() };
    let ending = after(&starting, &[left, EventKind::EndRequested(stop())]);
    assert_eq!(ending.state.why().map(|why| why.code.as_str()), Some("client-left"));
}
