//! Who lives, and who drives what.

use std::time::Duration;

use callbox_core::{EndCode, EventKind, Session, SessionId};
use callbox_server::store::{Inserted, NewSession, Replica, Saved, Store, Versioned};
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{after, end, end_all, new, session};

const AGES: Duration = Duration::from_secs(1_000_000);
const NONE: Duration = Duration::ZERO;

pub(super) async fn contract(store: &dyn Store) {
    replicas(store).await;
    end_all(store).await;
    take_over(store).await;
    end_all(store).await;
    places(store).await;
    end_all(store).await;
    changes(store).await;
}

fn replica(id: &str, place: &str) -> Replica {
    Replica { id: id.into(), place: place.into(), url: format!("http://{id}") }
}

async fn replicas(store: &dyn Store) {
    let (one, two) = (replica("one", "here"), replica("two", ""));
    store.beat(&two).await.unwrap();
    store.beat(&one).await.unwrap();
    assert_eq!(store.replicas(AGES).await.unwrap(), [one.clone(), two.clone()]);
    assert_eq!(store.replicas(NONE).await.unwrap(), [], "nobody spoke since just now");
    let moved = Replica { url: "http://elsewhere".into(), ..one };
    store.beat(&moved).await.unwrap();
    assert_eq!(store.replicas(AGES).await.unwrap(), [moved, two]);
    for id in ["one", "two", "never-there"] {
        store.retire(id).await.unwrap();
    }
    assert_eq!(store.replicas(AGES).await.unwrap(), []);
}

async fn driven_by(store: &dyn Store, driver: &Replica, at: i64) -> Versioned {
    let session = Session { place: driver.place.clone(), ..session(&format!("of-{at}"), at) };
    let new = NewSession { replica: driver.id.clone(), ..new(&session, None) };
    let Inserted::Created(row) = store.insert(&new).await.unwrap() else { panic!("no cap yet") };
    assert_eq!(row.replica.as_deref(), Some(&*driver.id).filter(|id| !id.is_empty()));
    row
}

fn ids(rows: &[Versioned]) -> Vec<SessionId> {
    rows.iter().map(|row| row.session.id).collect()
}

async fn row(store: &dyn Store, of: &Versioned) -> Versioned {
    store.get(of.session.id).await.unwrap().expect("it is there")
}

async fn take_over(store: &dyn Store) {
    let (old, new) = (replica("old", ""), replica("new", ""));
    store.beat(&old).await.unwrap();
    let second = driven_by(store, &old, 102).await;
    let first = driven_by(store, &old, 101).await;
    let third = driven_by(store, &old, 103).await;
    assert_eq!(store.take_over(&new, AGES, AGES, 9).await.unwrap(), [], "its driver lives");
    assert_eq!(store.take_over(&old, NONE, NONE, 9).await.unwrap(), [], "these are its own");
    assert_eq!(store.driven("old").await.unwrap().len(), 3);

    // Silent, by a patience of nothing. The oldest go first, and not more than wanted.
    let taken = store.take_over(&new, NONE, AGES, 2).await.unwrap();
    assert_eq!(ids(&taken), ids(&[first.clone(), second.clone()]));
    assert_eq!(taken[0], row(store, &first).await, "the answer is the row");
    assert_eq!((taken[0].replica.as_deref(), taken[0].version), (Some("new"), first.version + 1));
    assert_eq!(store.driven("new").await.unwrap().len(), 2);
    assert_eq!(store.driven("old").await.unwrap(), [third.session.id]);

    // Who was taken over saves no more, and a save leaves the driver as it is.
    let next = after(&first.session, EventKind::Admitted);
    assert_eq!(store.save(&next, first.version).await.unwrap(), Saved::Conflict);
    assert!(matches!(store.save(&next, taken[0].version).await.unwrap(), Saved::Saved(_)));
    assert_eq!(row(store, &first).await.replica.as_deref(), Some("new"));

    // `new` never said that it lives, so it counts as silent.
    assert_eq!(store.take_over(&old, AGES, AGES, 9).await.unwrap().len(), 2);
    assert!(store.driven("new").await.unwrap().is_empty());

    // Who retires has no sessions from then on, and they have nobody.
    store.retire("old").await.unwrap();
    assert!(store.driven("old").await.unwrap().is_empty());
    let left = row(store, &third).await;
    assert_eq!((left.replica, left.version), (None, third.version));
    assert_eq!(store.take_over(&new, AGES, AGES, 9).await.unwrap().len(), 3);
    let unknown = SessionId(Uuid::new_v4());
    let versions = store.versions(&[third.session.id, unknown]).await.unwrap();
    assert_eq!(versions, [(third.session.id, third.version + 1, Some("new".to_owned()))]);
    assert_eq!(store.versions(&[]).await.unwrap(), []);

    // The ended are nobody's to take.
    let last = row(store, &third).await;
    end(store, last, EndCode::Stopped).await;
    let taken = store.take_over(&old, NONE, NONE, 9).await.unwrap();
    assert_eq!(ids(&taken), ids(&[first, second]));
    store.retire("old").await.unwrap();
}

/// A machine that only its host reaches is left to that host's dispatchers for longer.
async fn places(store: &dyn Store) {
    let (here, beside, there) = (replica("a", "here"), replica("b", "here"), replica("c", "there"));
    store.beat(&here).await.unwrap();
    let bound = driven_by(store, &here, 201).await;
    let free = Session { place: String::new(), ..session("free", 202) };
    let free = NewSession { replica: here.id.clone(), ..new(&free, None) };
    let Inserted::Created(free) = store.insert(&free).await.unwrap() else { panic!("no cap yet") };

    assert_eq!(ids(&store.take_over(&there, NONE, AGES, 9).await.unwrap()), [free.session.id]);
    assert_eq!(ids(&store.take_over(&beside, NONE, AGES, 9).await.unwrap()).len(), 2);
    store.beat(&beside).await.unwrap();
    assert_eq!(store.take_over(&there, NONE, NONE, 9).await.unwrap().len(), 2, "lost, in the end");

    // Retired is not lost: the next dispatcher of that host comes within the same time.
    store.take_over(&beside, NONE, NONE, 9).await.unwrap();
    store.retire(&beside.id).await.unwrap();
    assert_eq!(ids(&store.take_over(&there, AGES, AGES, 9).await.unwrap()), [free.session.id]);
    assert_eq!(ids(&store.take_over(&there, AGES, NONE, 9).await.unwrap()), [bound.session.id]);
    for one in [here, beside, there] {
        store.retire(&one.id).await.unwrap();
    }
}

async fn changes(store: &dyn Store) {
    let mut changes = store.changes();
    let nobody = replica("", "");
    let new = driven_by(store, &nobody, 301).await;
    told(&mut changes, new.session.id).await;
    let next = after(&new.session, EventKind::Admitted);
    store.save(&next, new.version).await.unwrap();
    told(&mut changes, new.session.id).await;
    store.take_over(&replica("taker", ""), AGES, AGES, 9).await.unwrap();
    told(&mut changes, new.session.id).await;
}

/// Waits for a hint about this session. A lag is a hint about all.
pub(super) async fn told(changes: &mut broadcast::Receiver<SessionId>, id: SessionId) {
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        while matches!(changes.recv().await, Ok(other) if other != id) {}
    });
    told.await.expect("a hint comes");
}
