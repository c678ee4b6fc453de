use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use uuid::Uuid;

use super::*;

const ID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
const ROOM: &str = "callbox-6f9619ff8b864d01b42d00cf4fc964ff";

pub(super) fn http() -> reqwest::Client {
    // Built together with `callbox`, reqwest has TLS without a provider and insists on one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

fn livekit() -> Livekit {
    Livekit::new(
        http(),
        LivekitServer {
            url: "wss://livekit.example.com/".into(),
            api_url: None,
            api_key: "devkey".into(),
            api_secret: "secret".into(),
        },
        "d1",
    )
    .expect("it can be used")
}

fn room() -> Room {
    let created_at = Time::from_micros(1_700_000_000_000_000);
    Room {
        session: SessionId::parse(ID).expect("a uuid"),
        created_at,
        ends_by: created_at.after(Duration::from_secs(7200)),
        options: Value::Null,
    }
}

fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("base64")).expect("JSON")
}

#[test]
fn client_and_bot_have_tokens_of_their_own_for_one_room() {
    let plan = Plan { room: &room(), base_url: "ws://x", bot_port: 8080 };
    let join = livekit().plan(&plan);
    let keys: Vec<&String> = join.client.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["sessionId", "token", "url"]);
    assert_eq!(join.client["url"], "wss://livekit.example.com");
    assert_eq!(join.client["sessionId"], ID);
    let user = claims(join.client["token"].as_str().expect("a text"));
    let expected = json!({
        "iss": "devkey", "sub": "User-6f9619ff", "name": "User-6f9619ff",
        "nbf": 1_699_999_700, "exp": 1_700_007_200,
        "video": { "roomJoin": true, "room": ROOM },
    });
    assert_eq!(user, expected);
    let bot = claims(&join.bot_token);
    assert_eq!(bot["sub"], "Pipecat Agent-6f9619ff");
    assert_eq!(bot["video"], json!({ "roomJoin": true, "room": ROOM, "agent": true }));
}

/// As LiveKit signs one.
fn signed(body: &[u8], now: i64) -> HeaderMap {
    use base64::engine::general_purpose::STANDARD;
    use sha2::Digest as _;
    let hash = STANDARD.encode(Sha256::digest(body));
    let claims = json!({ "iss": "devkey", "nbf": now, "exp": now + 300, "sha256": hash });
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let said = format!("{}.{}", part(r#"{"alg":"HS256","typ":"JWT"}"#), part(&claims.to_string()));
    let mut mac = Hmac::<Sha256>::new_from_slice(b"secret").expect("any key");
    mac.update(said.as_bytes());
    let token = format!("{said}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
    HeaderMap::from_iter([(AUTHORIZATION, token.parse().expect("a header"))])
}

#[test]
fn a_webhook_tells_what_stays_true_and_else_to_look() {
    let livekit = livekit();
    let now = Time::from_micros(1_700_000_000_000_000);
    let session = SessionId::parse(ID).expect("a uuid");
    let sight = |event: &str, room: &str, identity: &str, kind: &str| {
        let body = json!({
            "event": event, "room": { "name": room, "sid": "RM_x" },
            "participant": { "identity": identity, "kind": kind, "state": "ACTIVE" },
            "id": "EV_x", "createdAt": "1700000000",
        });
        let body = body.to_string();
        let seen = livekit.webhook(&signed(body.as_bytes(), now.as_secs()), body.as_bytes(), now);
        seen.expect("it is signed").into_iter().map(|seen| (seen.session, seen.sight)).next()
    };
    let (bot, user) = (bot_identity(session), client_identity(session));
    assert_eq!(sight("participant_joined", ROOM, &bot, "AGENT"), Some((session, Sight::BotJoined)));
    let joined = Some((session, Sight::ClientJoined));
    assert_eq!(sight("participant_joined", ROOM, &user, "STANDARD"), joined);
    assert_eq!(sight("participant_joined", ROOM, "+4930", "SIP"), joined);
    assert_eq!(sight("participant_joined", ROOM, "recorder", "EGRESS"), None);
    let changed = Some((session, Sight::Changed));
    for event in ["participant_left", "participant_connection_aborted", "room_finished"] {
        assert_eq!(sight(event, ROOM, &user, "STANDARD"), changed);
    }
    assert_eq!(sight("track_published", ROOM, &user, "STANDARD"), None);
    assert_eq!(sight("participant_joined", "somebody-elses", &user, "STANDARD"), None);
}

#[test]
fn a_webhook_is_believed_with_its_signature_only() {
    let livekit = livekit();
    let now = Time::from_micros(1_700_000_000_000_000);
    let body = br#"{"event":"participant_joined","room":{"name":"x"}}"#;
    let headers = signed(body, now.as_secs());
    assert!(livekit.webhook(&headers, body, now).is_ok());
    let unsigned = |result| matches!(result, Err(WebhookRefusal::Unsigned(_)));
    assert!(unsigned(livekit.webhook(&HeaderMap::new(), body, now)));
    assert!(unsigned(livekit.webhook(&headers, b"{}", now)), "another body");
    let late = now.after(Duration::from_secs(600));
    assert!(unsigned(livekit.webhook(&headers, body, late)), "an old one, sent again");
    let garbage = b"no JSON";
    let answer = livekit.webhook(&signed(garbage, now.as_secs()), garbage, now);
    assert!(matches!(answer, Err(WebhookRefusal::Unreadable(_))));
}

#[test]
fn rooms_of_ours_are_known_by_name_and_label() {
    let session = SessionId(Uuid::new_v4());
    assert_eq!(session_of(&room_name(session)), Some(session));
    for name in ["", "callbox-", "callbox-x", ID, &format!("callbox-{ID}"), &ROOM.to_uppercase()] {
        assert_eq!(session_of(name), None, "{name:?}");
    }
    let livekit = livekit();
    let mut listed = client::Room {
        name: ROOM.into(),
        metadata: r#"{"callbox":"d2"}"#.into(),
        creation_time: "1700000000".into(),
        creation_time_ms: "1700000000123".into(),
    };
    let found = livekit.listed(&listed).expect("it is ours");
    assert_eq!(found.deployment.as_deref(), Some("d2"));
    assert_eq!(found.made_at, Some(Time::from_micros(1_700_000_000_123_000)));
    listed.creation_time_ms = String::new();
    let found = livekit.listed(&listed).expect("it is ours");
    assert_eq!(found.made_at, Some(Time::from_micros(1_700_000_000_000_000)));
    listed.metadata = String::new();
    assert_eq!(livekit.listed(&listed), None, "whose it is nobody can say");
}

#[test]
fn what_cannot_be_used_is_said() {
    let with = |url: &str, api: Option<&str>, key: &str| {
        let server = LivekitServer {
            url: url.into(),
            api_url: api.map(str::to_owned),
            api_key: key.into(),
            api_secret: "s".into(),
        };
        Livekit::new(http(), server, "d1").map(drop)
    };
    assert!(with("ws://127.0.0.1:7880", Some("http://10.0.0.2:7880"), "k").is_ok());
    for url in ["", "https://a", "wss://", "wss://u:p@a", "wss://a?b=c", "a"] {
        assert!(matches!(with(url, None, "k"), Err(LivekitError::Address { .. })), "{url:?}");
    }
    assert!(matches!(with("wss://a", Some("wss://a"), "k"), Err(LivekitError::Address { .. })));
    assert!(matches!(with("wss://a", None, ""), Err(LivekitError::Keys)));
}
