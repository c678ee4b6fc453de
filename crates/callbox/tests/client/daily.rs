//! `callbox serve` with rooms at Daily, which a stand-in plays: from the request to the room's end.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use callbox_standins::daily::{Settings, StandIn};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::Child,
};

use crate::support::binary::{begin, callbox, finish, interrupt};

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// How long is waited for what must happen.
const SOON: Duration = Duration::from_secs(30);

struct House {
    standin: StandIn,
    daily: String,
    home: TempDir,
    http: Client,
}

impl House {
    async fn new() -> House {
        let standin = StandIn::new(Settings::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let daily = format!("http://{}/v1", listener.local_addr().unwrap());
        let serving = standin.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        let _ = rustls::crypto::ring::default_provider().install_default();
        House { standin, daily, home: TempDir::new().unwrap(), http: Client::new() }
    }

    /// A dispatcher, and where it is.
    async fn dispatcher(&self) -> (Child, String) {
        let file = self.home.path().join("callbox.toml");
        let data_dir = self.home.path().join("data");
        let config = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = {data_dir:?}\n\
             [daily]\nwebhook_secret = {{ env = \"HOOK\" }}\n\
             [bots.ada]\nprovider = \"fake\"\ntransports = [\"daily\"]\nready_when = \"room\"\n\
             stop_grace_s = 0.1\ntimeouts = {{ alone_s = 1 }}\n"
        );
        std::fs::write(&file, config).unwrap();
        serve(&file, &[("DAILY_API_URL", &self.daily), ("DAILY_API_KEY", self.standin.api_key())])
            .await
    }

    /// A configuration with this bot.
    fn file(&self, bot: &str) -> String {
        let file = self.home.path().join("callbox.toml");
        let data_dir = self.home.path().join("data");
        let config =
            format!("listen = \"127.0.0.1:0\"\ndata_dir = {data_dir:?}\n[bots.ada]\n{bot}");
        std::fs::write(&file, config).unwrap();
        file.to_str().unwrap().to_owned()
    }

    async fn ask(&self, method: Method, url: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.http.request(method, url).timeout(SOON);
        if url.starts_with(&self.daily) {
            request = request.bearer_auth(self.standin.api_key());
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    /// A session and its room, which its bot is in.
    async fn with_bot(&self, url: &str) -> (Value, String) {
        let asked = json!({
            "createDailyRoom": true, "body": { "a": 1 },
            "dailyRoomProperties": { "enable_chat": true },
            "dailyMeetingTokenProperties": { "user_name": "Ada" },
        });
        let (status, join) = self.ask(Method::POST, &format!("{url}/start"), Some(asked)).await;
        assert_eq!(status, StatusCode::OK, "{join}");
        let keys: Vec<&String> = join.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["dailyRoom", "dailyToken", "sessionId"]);
        let room = join["dailyRoom"].as_str().unwrap();
        let room = room.strip_prefix("https://callbox-standin.daily.co/").unwrap().to_owned();
        self.until(|| self.standin.rooms().contains(&room)).await;
        assert_eq!(self.standin.properties(&room).unwrap()["enable_chat"], true);
        let properties = json!({ "room_name": room, "is_owner": true, "user_id": "callbox-bot" });
        let asked = Some(json!({ "properties": properties }));
        let token = self.ask(Method::POST, &format!("{}/meeting-tokens", self.daily), asked).await;
        self.standin.join(&room, token.1["token"].as_str().unwrap()).unwrap();
        (join, room)
    }

    /// The session as soon as it has come so far.
    async fn wait(&self, url: &str, join: &Value, moment: &str) -> Value {
        let id = join["sessionId"].as_str().unwrap();
        let path = format!("{url}/v1/sessions/{id}?wait={moment}&timeout_ms=20000");
        let (status, session) = self.ask(Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::OK, "{session}");
        session
    }

    /// Resolves when bot and client are both in.
    async fn live(&self, url: &str, join: &Value) {
        let (began, id) = (Instant::now(), join["sessionId"].as_str().unwrap());
        loop {
            let (_, session) =
                self.ask(Method::GET, &format!("{url}/v1/sessions/{id}"), None).await;
            if session["state"] == "live" {
                return;
            }
            assert!(began.elapsed() < SOON, "{session}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until(&self, what: impl Fn() -> bool) {
        let began = Instant::now();
        while !what() {
            assert!(began.elapsed() < SOON, "it did not happen: {:?}", self.standin.calls());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn serve(file: &Path, variables: &[(&str, &str)]) -> (Child, String) {
    let arguments = ["serve", "--config", file.to_str().unwrap()];
    let variables = [variables, &[("HOOK", SECRET)]].concat();
    let mut child = begin("", &arguments, &variables);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
    let url = line.trim().strip_prefix("callbox serves on ").map(str::to_owned);
    match url {
        Some(url) => (child, url),
        None => panic!("{line:?}: {:?}", finish(child).await),
    }
}

#[tokio::test]
async fn a_session_in_a_room_from_the_request_to_the_rooms_end() {
    let house = House::new().await;
    let (dispatcher, url) = house.dispatcher().await;
    let kinds = ["participant.joined", "participant.left", "meeting.ended"];
    let hook = json!({ "url": format!("{url}/v1/webhooks/daily"), "hmac": SECRET,
                       "eventTypes": kinds });
    let (status, made) =
        house.ask(Method::POST, &format!("{}/webhooks", house.daily), Some(hook)).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    for (asked, code) in [
        (json!({ "transport": "websocket" }), "unknown-transport"),
        (json!({ "transport": "smoke" }), "unknown-transport"),
        (json!({ "dailyRoomProperties": { "exp": "soon" } }), "invalid-room-options"),
    ] {
        let (status, answer) = house.ask(Method::POST, &format!("{url}/start"), Some(asked)).await;
        assert_eq!((status, answer["code"].as_str()), (StatusCode::BAD_REQUEST, Some(code)));
        assert!(["error", "info", "detail"].iter().all(|key| answer[key].is_string()), "{answer}");
    }

    let (join, room) = house.with_bot(&url).await;
    let ready = house.wait(&url, &join, "ready").await;
    assert!(ready["moments"]["bot_present"].is_string(), "{ready}");
    let ada = house.standin.join(&room, join["dailyToken"].as_str().unwrap()).unwrap();
    assert_eq!(house.standin.people(&room)[1].user_name.as_deref(), Some("Ada"));
    house.live(&url, &join).await;
    house.standin.leave(&room, &ada);
    let ended = house.wait(&url, &join, "ended").await;
    assert_eq!(ended["end_reason"]["code"], "alone");
    // Both came, one left, and the other one was thrown out of the last meeting.
    house.until(|| house.standin.webhook_answers().len() == 5).await;
    assert_eq!(house.standin.webhook_answers(), [200; 5], "signed, and believed");
    assert_eq!(house.standin.rooms(), Vec::<String>::new());
    interrupt(&dispatcher);
    finish(dispatcher).await.expect(0);
}

#[tokio::test]
async fn no_room_stays_when_its_dispatcher_dies() {
    let house = House::new().await;
    let (mut dispatcher, url) = house.dispatcher().await;
    let (join, room) = house.with_bot(&url).await;
    house.wait(&url, &join, "ready").await;
    dispatcher.kill().await.unwrap();
    assert_eq!(house.standin.rooms(), [room.as_str()]);
    let (dispatcher, url) = house.dispatcher().await;
    let session = format!("{url}/v1/sessions/{}", join["sessionId"].as_str().unwrap());
    house.ask(Method::DELETE, &session, None).await;
    house.wait(&url, &join, "ended").await;
    assert_eq!(house.standin.rooms(), Vec::<String>::new());
    // A request of the dead one's that was on its way for long makes it once more; others' rooms
    // are none of our business.
    for name in [&room, "standup", "cb-fedcba98-aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        let late = Some(json!({ "name": name, "privacy": "private" }));
        house.ask(Method::POST, &format!("{}/rooms", house.daily), late).await;
    }
    house.ask(Method::POST, &format!("{url}/v1/sweep"), Some(json!({}))).await;
    assert_eq!(house.standin.rooms(), ["cb-fedcba98-aaaaaaaaaaaaaaaaaaaaaaaaaa", "standup"]);
    interrupt(&dispatcher);
    finish(dispatcher).await.expect(0);
}

#[tokio::test]
async fn a_key_that_daily_refuses_is_said_before_anything_is_served() {
    let house = House::new().await;
    let cut_off = "provider = \"local\"\nimage = \"x\"\ntransports = [\"daily\"]\n";
    let path = house.file(cut_off);
    let ran = callbox("", &["serve", "--config", &path]).await.expect(2);
    ran.says(&["bots.ada.network", "(daily)"]);
    let path = &house.file("provider = \"fake\"\ntransports = [\"daily\"]\n");
    callbox("", &["serve", "--config", path])
        .await
        .expect(2)
        .says(&["daily.api_key", "DAILY_API_KEY"]);
    let variables = [("DAILY_API_URL", house.daily.as_str()), ("DAILY_API_KEY", "geheim")];
    let child = begin("", &["serve", "--config", path], &variables);
    let ran = finish(child).await.expect(2);
    ran.says(&["invalid api key"]);
    assert!(!ran.stderr.contains("geheim"));
}

#[tokio::test]
async fn the_stand_in_is_served_and_says_what_it_is() {
    let arguments = ["rooms", "serve", "--listen", "127.0.0.1:0", "--json"];
    let mut child = begin("", &arguments, &[]);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
    let serving: Value = serde_json::from_str(&line).unwrap();
    assert!(serving["is"].as_str().unwrap().ends_with("nothing of this is Daily"));
    let (url, key) = (&serving["env"]["DAILY_API_URL"], &serving["env"]["DAILY_API_KEY"]);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let asked = Client::new().get(url.as_str().unwrap()).bearer_auth(key.as_str().unwrap());
    let domain: Value = asked.send().await.unwrap().json().await.unwrap();
    assert_eq!(domain["domain_name"], "callbox-standin");
    interrupt(&child);
    finish(child).await.expect(0);
}
