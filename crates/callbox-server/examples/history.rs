//! Whether a start is as quick with millions of ended sessions as with none: two stores, one
//! empty and one filled, in turns. Run by `cargo xtask bench-history`; prints one JSON object.
//!
//! Arguments: `sqlite` and a directory, or `postgres` and a server's address; rows; starts.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    str::FromStr as _,
    sync::Arc,
    time::{Duration, Instant},
};

use callbox_core::{
    Applied, EndCode, EndReason, Event, EventKind, Limits, MachineFacts, Outcome, ReadyWhen,
    Restarts, Session, SessionId, SessionSpec, Time, apply,
};
use callbox_server::store::{
    Filter, Inserted, NewSession, Postgres, Saved, Sqlite, StartKey, Store,
};
use serde_json::{Value, json};
use sqlx::{
    ConnectOptions as _, Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions,
    sqlite::SqliteConnectOptions,
};
use uuid::Uuid;

/// So many live beside those that are measured.
const LIVING: usize = 100;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kind, place, rows, starts] = &args[..] else { panic!("see the header") };
    let (rows, starts): (u64, usize) = (rows.parse().unwrap(), starts.parse().unwrap());
    let report = match kind.as_str() {
        "sqlite" => sqlite(Path::new(place), rows, starts).await,
        "postgres" => postgres(place, rows, starts).await,
        other => panic!("no store {other:?}"),
    };
    println!("{report}");
}

async fn sqlite(dir: &Path, rows: u64, starts: usize) -> Value {
    let (empty, full) = (dir.join("empty.db"), dir.join("full.db"));
    let store = Sqlite::open(&full).await.unwrap();
    one_ended(&store).await;
    drop(store);
    let began = Instant::now();
    let options = SqliteConnectOptions::new().filename(&full).pragma("synchronous", "off");
    let mut connection = options.pragma("cache_size", "-1000000").connect().await.unwrap();
    // In parts: one transaction would need a log as large as all rows.
    for part in parts(rows) {
        let fill = SQLITE_FILL.replace("{from}", &part.start.to_string());
        let fill = fill.replace("{to}", &part.end.to_string());
        connection.execute(sqlx::AssertSqlSafe(fill)).await.unwrap();
        connection.execute("pragma wal_checkpoint(truncate)").await.unwrap();
    }
    connection.close().await.unwrap();
    let filled = began.elapsed();
    let empty: Arc<dyn Store> = Arc::new(Sqlite::open(&empty).await.unwrap());
    let full: Arc<dyn Store> = Arc::new(Sqlite::open(&full).await.unwrap());
    measure("sqlite", rows, starts, filled, empty, full).await
}

async fn postgres(server: &str, rows: u64, starts: usize) -> Value {
    let server = PgConnectOptions::from_str(server).unwrap();
    let mut connection = PgConnection::connect_with(&server).await.unwrap();
    for name in ["history_empty", "history_full"] {
        let make = format!("create database {name}");
        connection.execute(sqlx::AssertSqlSafe(make)).await.unwrap();
    }
    let empty = Postgres::open(server.clone().database("history_empty")).await.unwrap();
    let full = Postgres::open(server.clone().database("history_full")).await.unwrap();
    one_ended(&full).await;
    let began = Instant::now();
    let filled_one = server.clone().database("history_full");
    let mut filling = PgConnection::connect_with(&filled_one).await.unwrap();
    for part in parts(rows) {
        let fill = POSTGRES_FILL.replace("{from}", &part.start.to_string());
        let fill = fill.replace("{to}", &part.end.to_string());
        filling.execute(sqlx::AssertSqlSafe(fill)).await.unwrap();
    }
    filling.execute("vacuum analyze").await.unwrap();
    filling.execute("checkpoint").await.unwrap();
    filling.close().await.unwrap();
    let filled = began.elapsed();
    let report = measure("postgres", rows, starts, filled, Arc::new(empty), Arc::new(full)).await;
    for name in ["history_empty", "history_full"] {
        let remove = format!("drop database {name} with (force)");
        connection.execute(sqlx::AssertSqlSafe(remove)).await.unwrap();
    }
    report
}

fn parts(rows: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    const PART: u64 = 500_000;
    (0..rows.div_ceil(PART)).map(move |n| n * PART..rows.min((n + 1) * PART))
}

/// Rows like the one that is there, one each second, of three bots; some with key and label, one
/// of a hundred failed.
const SQLITE_FILL: &str = "
    begin;
    create temp table if not exists fresh (n integer, id text);
    delete from fresh;
    with recursive count (n) as (select {from} union all select n + 1 from count where n + 1 < {to})
    insert into fresh select n, lower(
        hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
        || '-8' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))) from count;
    insert into session (id, version, place, bot, state, created_at, deadline_at, ended_at,
                         end_code, outcome, doc)
    select fresh.id, 8, '', 'bot-' || (n % 3), 'ended', n * 1000000, n * 1000000, n * 1000000 + 5,
           iif(n % 100 = 0, 'machine-lost', 'client-left'), iif(n % 100 = 0, 'failed', 'completed'),
           doc
    from fresh, (select doc from session order by created_at desc limit 1);
    insert into start_key select 'anonymous', 'key-' || n, 'hash', id from fresh where n % 10 = 0;
    insert into label select id, 'tenant', 'tenant-' || (n % 1000), n * 1000000
    from fresh where n % 10 = 1;
    commit;
";

const POSTGRES_FILL: &str = "
    create temp table fresh as
    select n, gen_random_uuid() as id from generate_series({from}::bigint, {to}::bigint - 1) as n;
    insert into session (id, version, place, bot, state, created_at, deadline_at, ended_at,
                         end_code, outcome, doc)
    select fresh.id, 8, '', 'bot-' || (n % 3), 'ended', n * 1000000, n * 1000000, n * 1000000 + 5,
           case when n % 100 = 0 then 'machine-lost' else 'client-left' end,
           case when n % 100 = 0 then 'failed' else 'completed' end, doc
    from fresh, (select doc from session order by created_at desc limit 1) one;
    insert into start_key select 'anonymous', 'key-' || n, 'hash', id from fresh where n % 10 = 0;
    insert into label select id, 'tenant', 'tenant-' || (n % 1000), n * 1000000
    from fresh where n % 10 = 1;
    drop table fresh;
";

async fn measure(
    kind: &str,
    rows: u64,
    starts: usize,
    filled: Duration,
    empty: Arc<dyn Store>,
    full: Arc<dyn Store>,
) -> Value {
    let (mut without, mut with) = (Times::default(), Times::default());
    for store in [&empty, &full] {
        for _ in 0..LIVING {
            insert(&**store).await;
        }
        // Caches and prepared statements are there before anything counts.
        for _ in 0..50 {
            life(&**store, &mut Times::default()).await;
        }
    }
    for turn in 0..starts {
        // Whoever is first finds the processor as the other left it.
        if turn % 2 == 0 {
            life(&*empty, &mut without).await;
            life(&*full, &mut with).await;
        } else {
            life(&*full, &mut with).await;
            life(&*empty, &mut without).await;
        }
    }
    json!({
        "store": kind, "rows": rows, "starts": starts, "filled_s": filled.as_secs(),
        "insert": compared(&mut without.insert, &mut with.insert),
        "save": compared(&mut without.save, &mut with.save),
        "list_ms": lists(&*full).await,
        "prune_200_ms": prune(&*full).await,
    })
}

#[derive(Default)]
struct Times {
    insert: Vec<Duration>,
    save: Vec<Duration>,
}

fn session() -> Session {
    let hour = Duration::from_secs(3600);
    let spec = SessionSpec {
        id: SessionId(Uuid::new_v4()),
        bot: "bot-1".into(),
        transport: "websocket".into(),
        provider: "local".into(),
        body: json!({ "customer": "0123456789", "language": "en", "voice": "a quiet one" }),
        room_options: Value::Null,
        base_url: "wss://calls.example.com".into(),
        labels: [("tenant".to_owned(), "tenant-1".to_owned())].into(),
        version: Some("sha256:0123456789abcdef".into()),
        place: String::new(),
        limits: Limits {
            queued: hour,
            start: hour,
            ready: hour,
            join: hour,
            live: hour,
            alone: hour,
            warn: hour,
            ending: hour,
        },
        ready_when: ReadyWhen::Bot,
        restarts: Restarts { most: 0, within: hour },
    };
    Session::accepted(spec, callbox_server::now())
}

async fn insert(store: &dyn Store) -> (Session, i64, Duration) {
    let session = session();
    let start_key = Some(StartKey {
        scope: "anonymous".into(),
        key: session.id.to_string(),
        body_hash: "hash".into(),
    });
    let (total_cap, bot_cap, queue_cap) = (10_000, 10_000, 10_000);
    let replica = "us".to_owned();
    let new =
        NewSession { session: session.clone(), replica, start_key, total_cap, bot_cap, queue_cap };
    let began = Instant::now();
    let inserted = store.insert(&new).await.unwrap();
    let took = began.elapsed();
    let Inserted::Created(row) = inserted else { panic!("{inserted:?}") };
    (session, row.version, took)
}

/// One session from its start to its end.
async fn life(store: &dyn Store, times: &mut Times) {
    let (mut now, mut version, took) = insert(store).await;
    times.insert.push(took);
    let facts = MachineFacts {
        accelerator: "kvm".into(),
        start: "clone".into(),
        stages: Vec::new(),
        not_enforced: Vec::new(),
        price: None,
    };
    for kind in [
        EventKind::Admitted,
        EventKind::ClientJoined,
        EventKind::MachineStarted { incarnation: 1, facts },
        EventKind::RoomOpened,
        EventKind::BotReady { incarnation: 1 },
        EventKind::Audible,
        EventKind::EndRequested(EndReason::new(EndCode::ClientLeft, "the client left")),
        EventKind::MachineDestroyed { incarnation: 1 },
        EventKind::RoomClosed,
    ] {
        let Ok(Applied::Changed(next)) = apply(&now, &Event { at: callbox_server::now(), kind })
        else {
            continue;
        };
        let began = Instant::now();
        let saved = store.save(&next, version).await.unwrap();
        times.save.push(began.elapsed());
        let Saved::Saved(next_version) = saved else { panic!("nobody else saves") };
        (now, version) = (*next, next_version);
    }
}

async fn one_ended(store: &dyn Store) {
    life(store, &mut Times::default()).await;
}

fn compared(without: &mut [Duration], with: &mut [Duration]) -> Value {
    let at = |times: &mut [Duration], part: f64| {
        times.sort_unstable();
        times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6
    };
    let mut both = serde_json::Map::new();
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let (without, with) = (at(without, part), at(with, part));
        let of = json!({
            "empty_us": without.round(), "full_us": with.round(),
            "ratio": (with / without * 100.0).round() / 100.0,
        });
        both.insert(name.into(), of);
    }
    both.into()
}

/// How long a page takes in the filled store, by filter.
async fn lists(store: &dyn Store) -> Value {
    let page = || Filter { limit: 51, ..Filter::default() };
    let label = |value: &str| vec![("tenant".to_owned(), value.to_owned())];
    let mut all = serde_json::Map::new();
    for (name, filter) in [
        ("all", page()),
        ("living", Filter { living: true, ..page() }),
        ("failed", Filter { outcome: Some(Outcome::Failed), ..page() }),
        ("code", Filter { code: Some(EndCode::MachineLost), ..page() }),
        ("code_that_is_not_there", Filter { code: Some(EndCode::RoomFailed), ..page() }),
        ("bot", Filter { bot: Some("bot-2".into()), ..page() }),
        ("bot_that_is_not_there", Filter { bot: Some("nobody".into()), ..page() }),
        ("label", Filter { labels: label("tenant-7"), ..page() }),
        ("label_that_is_not_there", Filter { labels: label("none"), ..page() }),
        ("long_ago", Filter { until: Some(Time::from_micros(1_000_000_000)), ..page() }),
    ] {
        let began = Instant::now();
        store.list(&filter).await.unwrap();
        all.insert(name.into(), json!((began.elapsed().as_secs_f64() * 1e4).round() / 10.0));
    }
    all.into()
}

async fn prune(store: &dyn Store) -> Value {
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        store.prune(Time::from_micros(i64::MAX / 2), 200).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort_unstable();
    json!({ "p50": (times[10].as_secs_f64() * 1e4).round() / 10.0,
            "most": (times[19].as_secs_f64() * 1e4).round() / 10.0 })
}
