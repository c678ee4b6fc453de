//! Lists, and what is removed from them.

use callbox_core::{EndCode, Outcome, Session, StateKind, Time};
use callbox_server::store::{Filter, Inserted, StartKey, Store};

use super::{end, end_all, new, session};

pub(super) async fn contract(store: &dyn Store) {
    end_all(store).await;
    pages(store).await;
    filters(store).await;
    end_all(store).await;
    prune(store).await;
}

fn of(bot: &str) -> Filter {
    Filter { bot: Some(bot.into()), limit: 100, ..Filter::default() }
}

async fn add(store: &dyn Store, session: Session) -> Session {
    let Inserted::Created(row) = store.insert(&new(&session, None)).await.unwrap() else {
        panic!("no cap yet")
    };
    row.session
}

/// When the sessions of a list were accepted.
async fn times(store: &dyn Store, filter: Filter) -> Vec<i64> {
    let rows = store.list(&filter).await.unwrap();
    rows.iter().map(|row| row.session.moments.accepted.as_micros()).collect()
}

async fn pages(store: &dyn Store) {
    for at in [51, 52, 52, 53] {
        let session = add(store, session("pages", at)).await;
        let row = store.get(session.id).await.unwrap().unwrap();
        end(store, row, EndCode::Stopped).await;
    }
    assert_eq!(times(store, of("pages")).await, [53, 52, 52, 51], "newest first");
    let all = store.list(&of("pages")).await.unwrap();
    let mut read = Vec::new();
    let mut page = Filter { limit: 1, ..of("pages") };
    while let [row] = &store.list(&page).await.unwrap()[..] {
        page.before = Some((row.session.moments.accepted, row.session.id));
        read.push(row.clone());
    }
    assert_eq!(read, all, "page by page it is the same list");
    assert_eq!(times(store, Filter { living: true, ..of("pages") }).await, [] as [i64; 0]);
}

async fn filters(store: &dyn Store) {
    let labelled = |bot: &str, at, labels: &[(&str, &str)]| Session {
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..session(bot, at)
    };
    let kept = add(store, labelled("f", 61, &[("tenant", "a"), ("kind", "x")])).await;
    let failed = add(store, labelled("f", 62, &[("tenant", "a")])).await;
    let stopped = add(store, labelled("g", 63, &[("tenant", "b"), ("kind", "x")])).await;
    for (session, code) in [(&failed, EndCode::MachineLost), (&stopped, EndCode::Stopped)] {
        let row = store.get(session.id).await.unwrap().unwrap();
        end(store, row, code).await;
    }
    assert_eq!(store.get(kept.id).await.unwrap().unwrap().session, kept, "labels are kept");
    // Those of the parts before are older than a minute of microseconds here.
    let since = || Filter { since: Some(Time::from_micros(61)), limit: 9, ..Filter::default() };
    let labels = |some: &[(&str, &str)]| -> Vec<(String, String)> {
        some.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    for (filter, expected) in [
        (since(), &[63, 62, 61][..]),
        (Filter { until: Some(Time::from_micros(63)), ..since() }, &[62, 61]),
        (Filter { bot: Some("f".into()), ..since() }, &[62, 61]),
        (Filter { living: true, ..since() }, &[61]),
        (Filter { state: Some(StateKind::Queued), ..since() }, &[61]),
        (Filter { state: Some(StateKind::Ended), ..since() }, &[63, 62]),
        (Filter { state: Some(StateKind::Live), ..since() }, &[]),
        (Filter { outcome: Some(Outcome::Failed), ..since() }, &[62]),
        (Filter { outcome: Some(Outcome::Completed), ..since() }, &[63]),
        (Filter { code: Some(EndCode::Stopped), ..since() }, &[63]),
        (Filter { code: Some(EndCode::JoinTimeout), ..since() }, &[]),
        (Filter { labels: labels(&[("tenant", "a")]), ..since() }, &[62, 61]),
        (Filter { labels: labels(&[("tenant", "a"), ("kind", "x")]), ..since() }, &[61]),
        (Filter { labels: labels(&[("tenant", "a")]), living: true, ..since() }, &[61]),
        (Filter { labels: labels(&[("tenant", "A")]), ..since() }, &[]),
        (Filter { labels: labels(&[("kind", "x")]), limit: 1, ..since() }, &[63]),
    ] {
        assert_eq!(times(store, filter.clone()).await, expected, "{filter:?}");
    }
    // A cursor goes on in every order.
    for filter in [
        Filter { labels: labels(&[("kind", "x")]), ..since() },
        Filter { state: Some(StateKind::Ended), ..since() },
        Filter { outcome: Some(Outcome::Failed), ..since() },
    ] {
        let rows = store.list(&filter).await.unwrap();
        let before = Some((rows[0].session.moments.accepted, rows[0].session.id));
        let rest = store.list(&Filter { before, ..filter.clone() }).await.unwrap();
        assert_eq!(rest, rows[1..], "{filter:?}");
    }
}

async fn prune(store: &dyn Store) {
    let key = StartKey { scope: "s".into(), key: "pruned".into(), body_hash: "a".into() };
    let mut old = session("prune", 300);
    let Inserted::Created(row) = store.insert(&new(&old, Some(key.clone()))).await.unwrap() else {
        panic!("no cap yet")
    };
    let living = session("prune", 301);
    store.insert(&new(&living, None)).await.unwrap();
    old = end(store, row, EndCode::Stopped).await;
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
