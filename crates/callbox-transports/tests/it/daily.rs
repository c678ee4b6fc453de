//! `daily` against its stand-in, on good days and bad ones.

use std::time::{Duration, Instant};

use callbox_core::{Fault, FaultKind};
use callbox_standins::daily::{Effect, Settings, StandIn, Trouble, When};
use callbox_transports::{Daily, DailyConfig, Plan, Presence, Room, Transport as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{contract, room};

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A stand-in, and what speaks to it.
async fn house(settings: Settings) -> (StandIn, Daily, String) {
    // Another test of this process may have been quicker.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let standin = StandIn::new(settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = standin.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    let daily = Daily::open(reqwest::Client::new(), config(&standin, &url)).await.unwrap();
    (standin, daily, url)
}

fn config(standin: &StandIn, url: &str) -> DailyConfig {
    DailyConfig {
        api_key: standin.api_key().to_owned(),
        api_url: format!("{url}/v1/"),
        domain: None,
        domain_id: None,
        geo: Some("eu-central-1".into()),
        webhook_secret: Some(SECRET.into()),
        delete_rooms: true,
        deployment: "0123456789abcdef".into(),
    }
}

fn tokens(daily: &Daily, room: &Room) -> (String, String) {
    let join = daily.plan(&Plan { room, base_url: "", bot_port: 0 });
    (join.client["dailyToken"].as_str().unwrap().to_owned(), join.bot_token)
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let (standin, daily, _) = house(Settings::default()).await;
    contract(&daily).await;
    assert_eq!(standin.rooms(), Vec::<String>::new());
}

#[tokio::test]
async fn it_keeps_the_contract_whatever_daily_does() {
    let (standin, daily, _) = house(Settings::default()).await;
    for effect in [
        Effect::Slow(20),
        Effect::Throttled,
        Effect::ServerError(When::Before),
        Effect::ServerError(When::After),
        Effect::Cut(When::Before),
        Effect::Cut(When::After),
    ] {
        for call in ["POST /rooms", "DELETE /rooms/:name", "GET /rooms", "GET /rooms/:name"] {
            standin.add_trouble(Trouble::on(call, effect, 1));
        }
        contract(&daily).await;
        standin.clear_troubles();
        assert_eq!(standin.rooms(), Vec::<String>::new(), "{effect:?}");
    }
    standin.add_trouble(Trouble::on("POST /rooms", Effect::Forbidden, 1));
    assert_eq!(daily.open(&room()).await.unwrap_err().kind, FaultKind::Refused);
}

#[tokio::test]
async fn both_come_in_with_their_tokens_and_are_told_apart() {
    let (standin, daily, _) = house(Settings::default()).await;
    let mut room = room();
    let asked = json!({ "dailyRoomProperties": { "enable_chat": true },
                        "dailyMeetingTokenProperties": { "user_name": "Ada" } });
    room.options = daily.check(asked.as_object().unwrap()).unwrap();
    daily.open(&room).await.unwrap();
    let name = daily.room_name(room.session);
    let exp = room.ends_by.as_micros() / 1_000_000;
    assert_eq!(
        standin.properties(&name).unwrap(),
        json!({ "enable_chat": true, "geo": "eu-central-1", "exp": exp, "eject_at_room_exp": true })
    );
    let join = daily.plan(&Plan { room: &room, base_url: "", bot_port: 0 });
    let keys: Vec<&String> = join.client.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["dailyRoom", "dailyToken", "sessionId"]);
    let url = format!("https://callbox-standin.daily.co/{name}");
    assert_eq!((&join.client["dailyRoom"], join.bot_room_url), (&json!(url), url.clone()));

    let (client, bot) = tokens(&daily, &room);
    assert!(standin.join("another", &client).is_err());
    standin.join(&name, &bot).unwrap();
    assert_eq!(daily.presence(&room).await, Ok(Some(Presence { bot: true, clients: 0 })));
    let ada = standin.join(&name, &client).unwrap();
    let people = standin.people(&name);
    assert_eq!(people.iter().map(|one| one.owner).collect::<Vec<_>>(), [true, false]);
    assert_eq!(people[1].user_name.as_deref(), Some("Ada"));
    assert_eq!(daily.presence(&room).await, Ok(Some(Presence { bot: true, clients: 1 })));
    standin.leave(&name, &ada);
    assert_eq!(daily.presence(&room).await, Ok(Some(Presence { bot: true, clients: 0 })));
    standin.lose_room(&name);
    assert_eq!(daily.presence(&room).await.unwrap_err().kind, FaultKind::NotFound);
}

#[tokio::test]
async fn with_many_rooms_all_are_looked_into_at_once_and_nobody_is_missed_who_is_there() {
    let stale = Duration::from_secs(3600);
    let (standin, daily, _) = house(Settings { stale, ..Settings::default() }).await;
    let rooms: Vec<Room> = (0..20).map(|_| room()).collect();
    for room in &rooms {
        daily.open(room).await.unwrap();
        standin.join(&daily.room_name(room.session), &tokens(&daily, room).0).unwrap();
    }
    let there = Ok(Some(Presence { bot: false, clients: 1 }));
    let began = Instant::now();
    for _ in 0..20 {
        for room in &rooms {
            assert_eq!(daily.presence(room).await, there);
        }
    }
    // As many as may be at once, and those that came meanwhile, however slow this host is.
    let may_be = 10.0 + 8.0 * began.elapsed().as_secs_f64() + 1.0;
    let calls = standin.calls();
    assert!(calls["GET /rooms/:name/presence"] as f64 <= may_be, "{may_be}: {calls:?}");
    assert_eq!(calls["GET /presence"], 1, "one for all");
    // What is told of all says that everybody is there still, and that is not all that counts.
    let room = &rooms[0];
    let name = daily.room_name(room.session);
    standin.leave(&name, &standin.people(&name)[0].id);
    daily.heard_of(room.session);
    assert_eq!(daily.presence(room).await, Ok(Some(Presence { bot: false, clients: 0 })));
    assert_eq!(daily.presence(room).await, Ok(Some(Presence { bot: false, clients: 0 })));
}

#[tokio::test]
async fn rooms_are_found_again_and_others_are_left_alone() {
    let (standin, daily, url) = house(Settings::default()).await;
    let mut theirs = config(&standin, &url);
    theirs.deployment = "fedcba9876543210".into();
    theirs.domain = Some("named".into());
    let theirs = Daily::open(reqwest::Client::new(), theirs).await.unwrap();
    let other = room();
    theirs.open(&other).await.unwrap();
    let http = reqwest::Client::new();
    let foreign = json!({ "name": "standup" });
    let made = http.post(format!("{url}/v1/rooms")).bearer_auth(standin.api_key()).json(&foreign);
    assert!(made.send().await.unwrap().status().is_success());
    // More than one page, and more than may be made at once.
    let rooms: Vec<Room> = (0..30).map(|_| room()).collect();
    for room in &rooms {
        daily.open(room).await.unwrap();
    }
    let listed = daily.list().await.unwrap();
    assert_eq!(listed.len(), 31);
    let label = |session| {
        let found = listed.iter().find(|one| one.session == session);
        found.and_then(|one| one.deployment.clone()).unwrap()
    };
    assert_eq!(label(rooms[3].session), "0123456789abcdef");
    assert_eq!(label(other.session), "fedcba98");
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_and_a_secret_too() {
    let (standin, _, url) = house(Settings::default()).await;
    let with = |change: fn(&mut DailyConfig)| {
        let mut config = config(&standin, &url);
        change(&mut config);
        Daily::open(reqwest::Client::new(), config)
    };
    let refused = |opened: Result<Daily, Fault>| opened.unwrap_err();
    let fault = refused(with(|config| config.api_key = "geheim".into()).await);
    assert_eq!(fault.kind, FaultKind::Refused);
    assert!(!fault.detail.contains("geheim"));
    let fault = refused(with(|config| config.webhook_secret = Some("geheim!".into())).await);
    assert!(fault.kind == FaultKind::Refused && !fault.detail.contains("geheim"));
    let fault = refused(with(|config| config.api_url = "http://127.0.0.1:1".into()).await);
    assert_eq!(fault.kind, FaultKind::Unavailable);
    // Nobody is asked where everything is known.
    let known = with(|config| {
        config.api_url = "http://127.0.0.1:1".into();
        config.domain = Some("d".into());
        config.domain_id = Some("id".into());
    });
    let daily = known.await.unwrap();
    let join = daily.plan(&Plan { room: &room(), base_url: "", bot_port: 0 });
    assert!(join.bot_room_url.starts_with("https://d.daily.co/cb-01234567-"));
}

#[tokio::test]
async fn rooms_that_are_not_removed_are_left_to_end_by_themselves() {
    let (standin, _, url) = house(Settings::default()).await;
    let config = DailyConfig { delete_rooms: false, ..config(&standin, &url) };
    let daily = Daily::open(reqwest::Client::new(), config).await.unwrap();
    let room = room();
    daily.open(&room).await.unwrap();
    daily.close(room.session).await.unwrap();
    assert_eq!(standin.rooms(), [daily.room_name(room.session)]);
    assert_eq!(daily.list().await, Ok(Vec::new()), "no sweep wants them");
    assert_eq!(Value::Null, room.options);
}
