//! The contract that every store keeps.

use std::time::Duration;

use callbox_core::{
    Applied, EndCode, EndReason, Event, EventKind, Limits, MachineFacts, ReadyWhen, Restarts,
    Session, SessionId, SessionSpec, StartStage, StateKind, Time, Usage, UsageAt, UsageSeen, apply,
};
use callbox_server::store::{
    Filter, Inserted, KeyRecord, NewSession, Replica, Saved, Sqlite, StartKey, Store, Versioned,
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
    lists(store).await;
    replicas(store).await;
    take_over(store).await;
    changes(store).await;
    prune(store).await;
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
}

fn queued() -> Filter {
    Filter { state: Some(StateKind::Queued), limit: 100, ..Filter::default() }
}

async fn lists(store: &dyn Store) {
    let filter = Filter { bot: Some("caps".into()), limit: 10, ..Filter::default() };
    let rows = store.list(&filter).await.unwrap();
    let times: Vec<i64> = rows.iter().map(|row| row.session.moments.accepted.as_micros()).collect();
    assert_eq!(times, [4, 2], "newest first");
    let cursor = (rows[0].session.moments.accepted, rows[0].session.id);
    let rest = store.list(&Filter { before: Some(cursor), ..filter.clone() }).await.unwrap();
    assert_eq!(rest, rows[1..]);
    let ended = Filter { bot: Some("cas".into()), living: true, limit: 10, ..Filter::default() };
    assert!(store.list(&ended).await.unwrap().is_empty());
}

const AGES: Duration = Duration::from_secs(1_000_000);

fn replica(id: &str, place: &str) -> Replica {
    Replica { id: id.into(), place: place.into(), url: format!("http://{id}") }
}

async fn replicas(store: &dyn Store) {
    let (one, two) = (replica("one", "here"), replica("two", ""));
    store.beat(&one).await.unwrap();
    store.beat(&two).await.unwrap();
    assert_eq!(store.replicas(AGES).await.unwrap(), [one.clone(), two.clone()]);
    assert_eq!(store.replicas(Duration::ZERO).await.unwrap(), [], "nobody spoke since just now");
    let moved = Replica { url: "http://elsewhere".into(), ..one };
    store.beat(&moved).await.unwrap();
    assert_eq!(store.replicas(AGES).await.unwrap(), [moved, two]);
    for id in ["one", "two", "never-there"] {
        store.retire(id).await.unwrap();
    }
    assert_eq!(store.replicas(AGES).await.unwrap(), []);
}

async fn driven_by(store: &dyn Store, id: &str, at: i64) -> Versioned {
    let session = Session { place: String::new(), ..session(&format!("of-{at}"), at) };
    let new = NewSession { replica: id.into(), ..new(&session, None) };
    let Inserted::Created(row) = store.insert(&new).await.unwrap() else { panic!("no cap yet") };
    row
}

async fn take_over(store: &dyn Store) {
    let (old, new, late) = (replica("old", ""), replica("new", ""), replica("late", ""));
    let all = |taken: Vec<Versioned>| -> Vec<SessionId> {
        taken.iter().map(|row| row.session.id).collect()
    };
    // What the tests before left without a driver is out of the way first.
    store.take_over(&replica("broom", ""), AGES, AGES, 100).await.unwrap();
    store.beat(&replica("broom", "")).await.unwrap();
    store.beat(&old).await.unwrap();
    let first = driven_by(store, "old", 101).await;
    assert_eq!(first.replica.as_deref(), Some("old"));
    let second = driven_by(store, "old", 102).await;
    let third = driven_by(store, "old", 103).await;

    assert_eq!(store.take_over(&new, AGES, AGES, 100).await.unwrap(), [], "its driver lives");
    assert_eq!(store.take_over(&old, Duration::ZERO, Duration::ZERO, 0).await.unwrap(), []);
    store.retire("broom").await.unwrap();
    store.take_over(&late, AGES, AGES, 100).await.unwrap();
    store.beat(&late).await.unwrap();

    // Silent from now on, by a patience of nothing. The oldest go first, and not more than wanted.
    store.take_over(&old, Duration::ZERO, AGES, 100).await.unwrap();
    let mine = store.driven("old").await.unwrap();
    assert!([&first, &second, &third].iter().all(|row| mine.contains(&row.session.id)));
    let taken = store.take_over(&new, Duration::ZERO, AGES, 100).await.unwrap();
    assert!(all(taken).ends_with(&[first.session.id, second.session.id, third.session.id]));
    let row = store.get(first.session.id).await.unwrap().unwrap();
    assert_eq!((row.replica.as_deref(), row.version), (Some("new"), first.version + 1));
    let late_save = store.save(&first.session, first.version).await.unwrap();
    assert_eq!(late_save, Saved::Conflict, "who was taken over saves no more");
    assert!(matches!(store.save(&row.session, row.version).await.unwrap(), Saved::Saved(_)));
    let row = store.get(first.session.id).await.unwrap().unwrap();
    assert_eq!(row.replica.as_deref(), Some("new"), "a save leaves the driver as it is");
    assert!(store.driven("old").await.unwrap().is_empty());

    // Who never said that it lives counts as silent, and who has retired has no sessions.
    let taken = store.take_over(&old, AGES, AGES, 1).await.unwrap();
    assert_eq!(taken.len(), 1, "at most so many");
    store.beat(&new).await.unwrap();
    assert_eq!(store.take_over(&late, AGES, AGES, 1).await.unwrap(), []);
    store.retire("new").await.unwrap();
    assert!(store.driven("new").await.unwrap().is_empty());
    let row = store.get(third.session.id).await.unwrap().unwrap();
    assert_eq!((row.replica, row.version), (None, third.version + 1));
    let taken = all(store.take_over(&late, AGES, AGES, 100).await.unwrap());
    assert!(taken.contains(&third.session.id));
    let ids = [third.session.id, SessionId(Uuid::new_v4())];
    let expected = (third.session.id, third.version + 2, Some("late".to_owned()));
    assert_eq!(store.versions(&ids).await.unwrap(), [expected]);
    assert_eq!(store.versions(&[]).await.unwrap(), []);

    // The ended are nobody's to take.
    let row = store.get(third.session.id).await.unwrap().unwrap();
    end(store, row).await;
    store.retire("late").await.unwrap();
    let taken = all(store.take_over(&old, Duration::ZERO, Duration::ZERO, 100).await.unwrap());
    assert!(!taken.contains(&third.session.id));
    store.retire("old").await.unwrap();
}

/// Ends it at 9 s, as [`after`] does everything.
async fn end(store: &dyn Store, row: Versioned) -> Session {
    let stop = EventKind::EndRequested(EndReason::new(EndCode::Stopped, "enough"));
    let next = after(&after(&row.session, stop), EventKind::MachineDestroyed { incarnation: 1 });
    let next = after(&next, EventKind::RoomClosed);
    assert!(matches!(store.save(&next, row.version).await.unwrap(), Saved::Saved(_)));
    next
}

async fn changes(store: &dyn Store) {
    let mut changes = store.changes();
    let row = driven_by(store, "", 201).await;
    let id = row.session.id;
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        while changes.recv().await.unwrap() != id {}
    });
    told.await.expect("an insert is told");
    end(store, row).await;
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        while changes.recv().await.unwrap() != id {}
    });
    told.await.expect("a save is told");
}

async fn prune(store: &dyn Store) {
    let key = StartKey { scope: "s".into(), key: "pruned".into(), body_hash: "a".into() };
    let mut old = session("prune", 300);
    let Inserted::Created(row) = store.insert(&new(&old, Some(key.clone()))).await.unwrap() else {
        panic!("no cap yet")
    };
    let living = session("prune", 301);
    store.insert(&new(&living, None)).await.unwrap();
    old = end(store, row).await;
    let ended = old.moments.ended.unwrap();
    assert_eq!(store.prune(ended, 0).await.unwrap(), []);
    assert!(!store.prune(ended, 100).await.unwrap().contains(&old.id), "it ended then, not before");
    let later = Time::from_micros(ended.as_micros() + 1);
    let mut gone = Vec::new();
    loop {
        let some = store.prune(later, 1).await.unwrap();
        assert!(some.len() <= 1, "at most so many");
        if some.is_empty() {
            break;
        }
        gone.extend(some);
    }
    assert!(gone.contains(&old.id) && !gone.contains(&living.id));
    assert_eq!(store.get(old.id).await.unwrap(), None);
    assert!(store.get(living.id).await.unwrap().is_some(), "the living stay");
    let again = store.insert(&new(&session("again", 302), Some(key))).await.unwrap();
    assert!(matches!(again, Inserted::Created(_)), "its start key went with it");
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
