//! The transport `livekit` with a real LiveKit server.

use std::time::Duration;

use callbox_core::{FaultKind, SessionId, Time};
use callbox_transports::{Livekit, LivekitServer, Plan, Room, Sight, Transport};
use serde_json::Value;
use uuid::Uuid;

use crate::{contract, livekit_server::Server};

const DEPLOYMENT: &str = "d1";
const PATIENCE: Duration = Duration::from_secs(30);

fn livekit(server: &Server, secret: &str) -> Livekit {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let server = LivekitServer {
        url: server.url(),
        api_url: None,
        api_key: server.key().to_owned(),
        api_secret: secret.to_owned(),
    };
    Livekit::new(http, server, DEPLOYMENT).expect("it can be used")
}

fn room() -> Room {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    let created_at = Time::from_micros(i64::try_from(now.as_micros()).expect("before 292277"));
    Room {
        session: SessionId(Uuid::new_v4()),
        created_at,
        ends_by: created_at.after(Duration::from_secs(3600)),
        options: Value::Null,
    }
}

#[tokio::test]
async fn livekit_keeps_the_contract() {
    let Some(server) = Server::start().await else { return };
    contract(&livekit(&server, server.secret())).await;
}

#[tokio::test]
async fn a_room_is_listed_with_its_deployment_until_it_is_closed() {
    let Some(server) = Server::start().await else { return };
    let livekit = livekit(&server, server.secret());
    let room = room();
    livekit.open(&room).await.expect("a room is made");
    let listed = livekit.list().await.expect("a list");
    let ours: Vec<_> = listed.iter().filter(|one| one.session == room.session).collect();
    assert_eq!(ours.len(), 1, "{listed:?}");
    assert_eq!(ours[0].deployment.as_deref(), Some(DEPLOYMENT));
    let made_at = ours[0].made_at.expect("the server says when");
    assert!(made_at.since(room.created_at) < PATIENCE, "{made_at:?}");

    let presence = livekit.presence(&room).await.expect("it is there").expect("it can tell");
    assert!(!presence.bot && presence.clients == 0, "{presence:?}");
    livekit.close(room.session).await.expect("a room is ended");
    let gone = livekit.presence(&room).await.expect_err("it is gone");
    assert_eq!(gone.kind, FaultKind::NotFound, "{gone}");
    assert!(livekit.list().await.expect("a list").iter().all(|one| one.session != room.session));
}

#[tokio::test]
async fn both_tokens_open_the_room_and_no_other() {
    let Some(server) = Server::start().await else { return };
    let livekit = livekit(&server, server.secret());
    let room = room();
    livekit.open(&room).await.expect("a room is made");
    let join = livekit.plan(&Plan { room: &room, base_url: "ws://x", bot_port: 8080 });
    let user = join.client["token"].as_str().expect("a text");
    for token in [user, &join.bot_token] {
        let (status, said) = server.validate(token).await;
        assert_eq!(status, 200, "{said}");
    }
    let mut forged = user.to_owned();
    forged.truncate(user.len() - 4);
    assert_eq!(server.validate(&forged).await.0, 401);
    // What opens the room must not end it, or look into others.
    assert_eq!(server.delete_room_with(user, "any").await, 401);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_not_tried_again() {
    let Some(server) = Server::start().await else { return };
    let livekit = livekit(&server, "another-secret-of-thirty-two-bytes!");
    for fault in [
        livekit.open(&room()).await.expect_err("no room"),
        livekit.list().await.expect_err("no list"),
        livekit.close(SessionId(Uuid::new_v4())).await.expect_err("it cannot be known"),
    ] {
        assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
        assert!(fault.detail.contains("livekit.api_secret"), "{fault}");
        let quoted = ["another-secret", "eyJ"].iter().any(|part| fault.detail.contains(part));
        assert!(!quoted, "a secret or a token: {fault}");
    }
}

#[tokio::test]
async fn the_servers_own_webhooks_are_believed() {
    let Some(mut server) = Server::start().await else { return };
    let livekit = livekit(&server, server.secret());
    let room = room();
    livekit.open(&room).await.expect("a room is made");
    livekit.close(room.session).await.expect("a room is ended");
    loop {
        let hook = tokio::time::timeout(PATIENCE, server.webhook()).await;
        let Some((headers, body)) = hook.expect("a webhook in time") else {
            // A server that was given by its address tells others.
            return;
        };
        let seen = livekit.webhook(&headers, &body, Room::clone(&room).created_at);
        let seen = seen.unwrap_or_else(|refusal| {
            panic!("{refusal}: {}", String::from_utf8_lossy(&body));
        });
        if let Some(seen) = seen.first() {
            assert_eq!((seen.session, seen.sight), (room.session, Sight::Changed));
            assert!(String::from_utf8_lossy(&body).contains("room_finished"));
            return;
        }
    }
}
