//! The contract that every store keeps.

mod away;
pub(crate) mod database;
mod leases;
mod lists;
mod postgres;
mod trouble;

use std::time::Duration;

use callbox_core::{
    Applied, EndCode, EndReason, Event, EventKind, Limits, MachineFacts, Price, ReadyWhen,
    Restarts, Session, SessionId, SessionSpec, StartStage, State, StateKind, Time, Usage, UsageAt,
    UsageSeen, apply,
};
use callbox_server::store::{
    Filter, Inserted, KeyRecord, Memory, NewSession, Saved, Sqlite, StartKey, Store, Versioned,
};
use serde_json::json;
use uuid::Uuid;

fn session(bot: &str, at: i64) -> Session {
    let second = Duration::from_secs(1);
    let limits = Limits {
        queued: second,
        start: second,
        ready: second,
        join: second,
        live: second,
        alone: second,
        warn: second,
        ending: second,
    };
    let spec = SessionSpec {
        id: SessionId(Uuid::new_v4()),
        bot: bot.into(),
        transport: "websocket".into(),
        provider: "fake".into(),
        body: json!({ "deep": [1, null, "ü"] }),
        room_options: json!({ "deep": [null, "ü"] }),
        base_url: "ws://127.0.0.1:1".into(),
        labels: [("tenant".to_owned(), "größe".to_owned())].into(),
        version: Some("sha256:abc".into()),
        place: String::new(),
        limits,
        ready_when: ReadyWhen::Bot,
        restarts: Restarts { most: 1, within: second },
    };
    Session::accepted(spec, Time::from_micros(at))
}

fn new(session: &Session, start_key: Option<StartKey>) -> NewSession {
    NewSession {
        session: session.clone(),
        replica: String::new(),
        start_key,
        total_cap: 100,
        bot_cap: 2,
        queue_cap: 100,
    }
}

fn after(session: &Session, kind: EventKind) -> Session {
    match apply(session, &Event { at: Time::from_micros(9_000_000), kind }).unwrap() {
        Applied::Changed(next) => *next,
        Applied::Unchanged => session.clone(),
    }
}

async fn contract(store: &dyn Store) {
    compare_and_set(store).await;
    start_keys_and_caps(store).await;
    lists::contract(store).await;
    leases::contract(store).await;
    keys(store).await;
    let deployment = store.deployment().await.unwrap();
    assert!(deployment == store.deployment().await.unwrap() && deployment.secret.len() == 32);
    store.ping().await.unwrap();
}

async fn compare_and_set(store: &dyn Store) {
    let first = session("cas", 1);
    let Inserted::Created(row) = store.insert(&new(&first, None)).await.unwrap() else {
        panic!("a first session is created")
    };
    let facts = MachineFacts {
        accelerator: "tcg".into(),
        start: "clone".into(),
        stages: vec![StartStage { name: "spawn".into(), took: Duration::from_micros(1234) }],
        not_enforced: vec!["something".into()],
        price: Some(Price { nano_usd_per_s: 2_200, as_of: "2026-06-07".into() }),
    };
    let usage = Usage { unique_bytes: 5, shared_bytes: 6, cpu: Duration::from_micros(7) };
    let seen = UsageSeen::default().with(usage, UsageAt::Ready).with(usage, UsageAt::End);
    let mut version = row.version;
    let mut now = first;
    for kind in [
        EventKind::Admitted,
        EventKind::ClientJoined,
        EventKind::MachineStarted { incarnation: 1, facts },
        EventKind::RoomOpened,
        EventKind::BotPresent,
        EventKind::BotReady { incarnation: 1 },
        EventKind::Measured(seen),
        EventKind::Audible,
        EventKind::BotBroke { incarnation: 1, detail: "gone".into() },
        EventKind::MachineDestroyed { incarnation: 1 },
        EventKind::MachineMade { incarnation: 2, id: "m-2".into() },
        EventKind::RoomEmpty,
        EventKind::EndRequested(EndReason::new(EndCode::Stopped, "über")),
        EventKind::MachineDestroyed { incarnation: 2 },
        EventKind::RoomClosed,
    ] {
        now = after(&now, kind);
        let Saved::Saved(next) = store.save(&now, version).await.unwrap() else {
            panic!("nobody else saves")
        };
        assert_eq!(store.save(&now, version).await.unwrap(), Saved::Conflict);
        version = next;
        let read = store.get(now.id).await.unwrap().unwrap();
        assert_eq!((read.session, read.version), (now.clone(), version), "what is saved is read");
    }
    assert!(!store.living().await.unwrap().contains(&now.id), "the ended do not live");
    assert_eq!(store.get(SessionId(Uuid::new_v4())).await.unwrap(), None);
    let stranger = session("cas", 1);
    assert_eq!(store.save(&stranger, 1).await.unwrap(), Saved::Conflict, "saving inserts nothing");
}

async fn start_keys_and_caps(store: &dyn Store) {
    let key = |body: &str| StartKey { scope: "s".into(), key: "k".into(), body_hash: body.into() };
    let first = session("caps", 2);
    store.insert(&new(&first, Some(key("a")))).await.unwrap();
    let again = store.insert(&new(&session("caps", 3), Some(key("a")))).await.unwrap();
    assert!(matches!(again, Inserted::Existing(row) if row.session.id == first.id));
    let other = store.insert(&new(&session("caps", 3), Some(key("b")))).await.unwrap();
    assert_eq!(other, Inserted::KeyReused);
    store.insert(&new(&session("caps", 4), None)).await.unwrap();
    let third = store.insert(&new(&session("caps", 5), None)).await.unwrap();
    assert_eq!(third, Inserted::AtCapacity { bot: Some("caps".into()), cap: 2 });
    let small = NewSession { total_cap: 2, ..new(&session("other", 5), None) };
    assert_eq!(store.insert(&small).await.unwrap(), Inserted::AtCapacity { bot: None, cap: 2 });
    assert!(store.living().await.unwrap().contains(&first.id));

    // Whoever must wait needs a place in the queue; whoever need not, does not.
    let waiting = store.list(&queued()).await.unwrap().len();
    let full = u32::try_from(waiting).unwrap();
    let must_wait = NewSession { queue_cap: full, ..new(&session("waits", 6), None) };
    assert_eq!(store.insert(&must_wait).await.unwrap(), Inserted::QueueFull { cap: full });
    let admitted = after(&session("waits", 7), EventKind::Admitted);
    let need_not = NewSession { queue_cap: full, ..new(&admitted, None) };
    assert!(matches!(store.insert(&need_not).await.unwrap(), Inserted::Created(_)));

    // A place comes free with whoever leaves it, and only then.
    let Inserted::Created(row) = store.insert(&new(&session("leaves", 8), None)).await.unwrap()
    else {
        panic!("there is room in the queue")
    };
    let one_more = NewSession { queue_cap: full + 1, ..must_wait };
    assert_eq!(store.insert(&one_more).await.unwrap(), Inserted::QueueFull { cap: full + 1 });
    store.save(&after(&row.session, EventKind::Admitted), row.version).await.unwrap();
    let row = store.get(first.id).await.unwrap().unwrap();
    let next = after(&row.session, EventKind::Admitted);
    let Saved::Saved(version) = store.save(&next, row.version).await.unwrap() else {
        panic!("nobody else saves it")
    };
    let third = store.insert(&new(&session("caps", 9), None)).await.unwrap();
    assert!(matches!(third, Inserted::AtCapacity { cap: 2, .. }), "admitted, it lives on");
    end(store, Versioned { session: next, version, ..row }, EndCode::Stopped).await;
    let third = store.insert(&new(&session("caps", 9), None)).await.unwrap();
    assert!(matches!(third, Inserted::Created(_)), "{third:?}");
    // That of the queue was left by two.
    assert!(matches!(store.insert(&one_more).await.unwrap(), Inserted::Created(_)));
}

fn queued() -> Filter {
    Filter { state: Some(StateKind::Queued), limit: 100, ..Filter::default() }
}

/// Ends it at 9 s, as [`after`] does everything.
async fn end(store: &dyn Store, row: Versioned, code: EndCode) -> Session {
    let incarnation = row.session.incarnation;
    let mut next = row.session;
    for kind in [
        EventKind::EndRequested(EndReason::new(code, "enough")),
        EventKind::MachineDestroyed { incarnation },
        EventKind::RoomClosed,
    ] {
        if !matches!(next.state, State::Ended { .. }) {
            next = after(&next, kind);
        }
    }
    assert!(matches!(store.save(&next, row.version).await.unwrap(), Saved::Saved(_)));
    next
}

/// So that nothing is in the way that another part of the contract left.
async fn end_all(store: &dyn Store) {
    for id in store.living().await.unwrap() {
        let row = store.get(id).await.unwrap().unwrap();
        end(store, row, EndCode::Stopped).await;
    }
}

async fn keys(store: &dyn Store) {
    let record = KeyRecord {
        id: "abc".into(),
        kind: "public".into(),
        name: "page".into(),
        hash: vec![1, 2, 3],
        created_at: Time::from_micros(7),
        revoked_at: None,
    };
    store.add_key(&record).await.unwrap();
    assert_eq!(store.key("abc").await.unwrap(), Some(record.clone()));
    assert!(store.add_key(&record).await.is_err(), "an id is used once");
    assert!(store.revoke_key("abc", Time::from_micros(8)).await.unwrap());
    assert!(!store.revoke_key("abc", Time::from_micros(9)).await.unwrap());
    assert_eq!(store.keys().await.unwrap()[0].revoked_at, Some(Time::from_micros(8)));
    assert_eq!(store.key("nobody").await.unwrap(), None);
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract(&Memory::default()).await;
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("callbox.db");
    contract(&Sqlite::open(&path).await.unwrap()).await;
    Sqlite::open(&path).await.expect("a second dispatcher of this version opens it as it is");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("callbox.db");
    std::fs::write(&path, "this is no database, and long enough to have a header of its own")
        .unwrap();
    assert!(Sqlite::open(&path).await.is_err());
}
