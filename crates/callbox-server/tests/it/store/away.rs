//! A database that is away, or cut off so that nothing comes back.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use callbox_core::EventKind;
use callbox_protocol::api::Session;
use callbox_server::store::{Inserted, Postgres, Saved, Store};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{after, database::Database, new, session};
use crate::app::{SOON, TestApp, code};

/// What a network does to those who pass.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Open,
    /// Nothing comes through, and nobody is told.
    Silent,
    /// Connections break, and no new ones are made.
    Broken,
}

/// Stands before the database.
struct Network {
    port: u16,
    way: watch::Sender<Way>,
}

impl Network {
    async fn before(server: SocketAddr) -> Network {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = watch::Sender::new(Way::Open);
        let ways = way.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *ways.borrow() == Way::Broken {
                    continue;
                }
                tokio::spawn(carry(near, server, ways.clone()));
            }
        });
        Network { port, way }
    }
}

async fn carry(near: TcpStream, server: SocketAddr, mut way: watch::Receiver<Way>) {
    let Ok(far) = TcpStream::connect(server).await else { return };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = pass(near_in, far_out, way.clone()) => {}
        () = pass(far_in, near_out, way.clone()) => {}
        _ = way.wait_for(|way| *way == Way::Broken) => {}
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
) {
    let mut bytes = [0; 8192];
    while let Ok(count) = from.read(&mut bytes).await {
        if count == 0 || way.wait_for(|way| *way != Way::Silent).await.is_err() {
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// A call to a database that is away ends within this time, in an error.
const SECONDS: Duration = Duration::from_secs(10);

async fn a_cut_gives_errors_within_seconds(cut: Way) {
    let Some(database) = Database::fresh().await else { return };
    let network = Network::before(database.server().await).await;
    let options = database.options().host("127.0.0.1").port(network.port);
    let store = Postgres::open(options).await.unwrap();
    let Inserted::Created(row) = store.insert(&new(&session("a", 1), None)).await.unwrap() else {
        panic!("no cap yet")
    };
    network.way.send_replace(cut);
    let next = after(&row.session, EventKind::Admitted);
    for attempt in 0..2 {
        let began = Instant::now();
        store.save(&next, row.version).await.expect_err("it is away");
        store.ping().await.expect_err("it is away");
        assert!(began.elapsed() < 2 * SECONDS, "attempt {attempt}: {:?}", began.elapsed());
    }
    network.way.send_replace(Way::Open);
    let saved = tokio::time::timeout(SECONDS, async {
        loop {
            // A save that was cut may have been done: then this one finds it so.
            if let Ok(saved) = store.save(&next, row.version).await {
                return saved;
            }
        }
    });
    match saved.await.expect("back within seconds") {
        Saved::Saved(version) => assert_eq!(version, row.version + 1),
        Saved::Conflict => {}
    }
    assert_eq!(store.get(next.id).await.unwrap().unwrap().session, next);
}

#[tokio::test]
async fn a_database_that_is_cut_off_gives_errors_within_seconds() {
    a_cut_gives_errors_within_seconds(Way::Silent).await;
}

#[tokio::test]
async fn a_database_that_is_gone_gives_errors_within_seconds() {
    a_cut_gives_errors_within_seconds(Way::Broken).await;
}

#[tokio::test]
async fn what_happens_while_the_database_is_away_is_saved_when_it_is_back() {
    let Some(database) = Database::fresh().await else { return };
    let network = Arc::new(Network::before(database.server().await).await);
    let app = TestApp::with_store(&database.url(Some(network.port))).await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    app.wait(&id, "ready").await;
    let client = app.connect(&join).await;
    app.until(&id, |session| session.moments.joined.is_some()).await;

    network.way.send_replace(Way::Broken);
    // The client goes; its end cannot be saved yet, and is not forgotten.
    drop(client);
    let refused = app.start_raw(json!({ "bot": "parrot" })).await;
    assert_eq!(refused.status(), 503, "nothing is acknowledged that could not be kept");
    network.way.send_replace(Way::Open);

    // Each connection that broke may say so once, to whoever is given it.
    let path = format!("/v1/sessions/{id}?wait=ended&timeout_ms=10000");
    let answered = async {
        loop {
            let answer = app.get(&path).await;
            if answer.status() == 200 {
                return answer.json().await.unwrap();
            }
            assert_eq!(answer.status(), 503);
        }
    };
    let ended: Session = tokio::time::timeout(2 * SOON, answered).await.unwrap();
    assert_eq!(code(&ended), "client-left");
    app.finish().await;
}
