//! Transport `webrtc` (SmallWebRTC): client and bot meet directly, or through a TURN server.
//!
//! There is no room: the client's offer is carried to the bot by the dispatcher, at
//! `/sessions/{id}/api/offer`. Media goes its own way, for which both sides get the same servers,
//! with credentials of this session and side alone.

use std::fmt;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use callbox_core::{Fault, SessionId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::{Join, Plan, Room, Transport};

/// Behind the session in the bot's name at TURN servers: each side has credentials of its own.
const BOT: &str = "-bot";

/// See the module's documentation.
#[derive(Clone)]
pub struct Webrtc {
    stun: Vec<String>,
    turn: Vec<String>,
    secret: Vec<u8>,
}

impl fmt::Debug for Webrtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webrtc")
            .field("stun", &self.stun)
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

impl Webrtc {
    /// With these STUN and TURN servers, and the secret that the latter share with us.
    pub fn new(ice_servers: Vec<String>, turn_secret: impl Into<Vec<u8>>) -> Webrtc {
        let (turn, stun) = ice_servers.into_iter().partition(|url| url.starts_with("turn"));
        Webrtc { stun, turn, secret: turn_secret.into() }
    }

    /// As browsers and bots take them; none where there are no servers.
    fn ice_config(&self, room: &Room, side: &str) -> Option<Value> {
        let mut servers = Vec::new();
        if !self.stun.is_empty() {
            servers.push(json!({ "urls": self.stun }));
        }
        if !self.turn.is_empty() {
            let (username, credential) = self.credentials(room, side);
            servers
                .push(json!({ "urls": self.turn, "username": username, "credential": credential }));
        }
        (!servers.is_empty()).then(|| json!({ "iceServers": servers }))
    }

    /// What coturn calls the TURN REST API: a name that says until when it is good, signed.
    fn credentials(&self, room: &Room, side: &str) -> (String, String) {
        let until = room.ends_by.as_secs();
        let username = format!("{until}:{}{side}", room.session);
        let mut mac =
            Hmac::<Sha1>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(username.as_bytes());
        let password = STANDARD.encode(mac.finalize().into_bytes());
        (username, password)
    }
}

#[async_trait]
impl Transport for Webrtc {
    fn name(&self) -> &'static str {
        "webrtc"
    }

    fn carries_media(&self) -> bool {
        false
    }

    fn plan(&self, plan: &Plan<'_>) -> Join {
        let (ice, bots) = (self.ice_config(plan.room, ""), self.ice_config(plan.room, BOT));
        let mut client = json!({ "sessionId": plan.room.session.to_string() });
        // Absent and not null: clients read into it.
        if let Some(ice) = &ice {
            client["iceConfig"] = ice.clone();
        }
        Join {
            client,
            bot_room_url: format!("http://127.0.0.1:{}/api/offer", plan.bot_port),
            bot_token: bots.map(|ice| ice.to_string()).unwrap_or_default(),
        }
    }

    async fn open(&self, _room: &Room) -> Result<(), Fault> {
        Ok(())
    }

    async fn close(&self, _session: SessionId) -> Result<(), Fault> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use callbox_core::Time;

    use super::*;

    fn room() -> Room {
        let created_at = Time::from_micros(1_700_000_000_000_000);
        Room {
            session: SessionId::parse("6f9619ff-8b86-4d01-b42d-00cf4fc964ff").expect("a uuid"),
            created_at,
            ends_by: created_at.after(std::time::Duration::from_secs(3600)),
            options: Value::Null,
        }
    }

    fn join(webrtc: &Webrtc) -> Join {
        webrtc.plan(&Plan { room: &room(), base_url: "ws://x", bot_port: 8080 })
    }

    #[test]
    fn both_sides_get_the_same_servers_with_credentials_of_their_own() {
        let servers = ["stun:a:3478", "turn:a:3478?transport=udp", "turns:a:5349"];
        let webrtc = Webrtc::new(servers.map(str::to_owned).into(), "north");
        let join = join(&webrtc);
        // By `openssl dgst -sha1 -hmac north -binary | base64`.
        let expected = json!({ "iceServers": [
            { "urls": ["stun:a:3478"] },
            {
                "urls": ["turn:a:3478?transport=udp", "turns:a:5349"],
                "username": "1700003600:6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
                "credential": "yw6QqSBAluWiHj+GcOWhHhCXvH0=",
            },
        ] });
        assert_eq!(join.client["iceConfig"], expected);
        let bots: Value = serde_json::from_str(&join.bot_token).expect("JSON");
        assert_eq!(bots["iceServers"][0], expected["iceServers"][0]);
        let (ours, theirs) = (&bots["iceServers"][1], &expected["iceServers"][1]);
        assert_eq!(ours["urls"], theirs["urls"]);
        assert_eq!(ours["username"], "1700003600:6f9619ff-8b86-4d01-b42d-00cf4fc964ff-bot");
        assert_ne!(ours["credential"], theirs["credential"]);
        assert!(!format!("{webrtc:?}").contains("north"));
    }

    #[test]
    fn without_servers_there_is_no_word_of_them() {
        let join = join(&Webrtc::new(Vec::new(), ""));
        let expected = json!({ "sessionId": "6f9619ff-8b86-4d01-b42d-00cf4fc964ff" });
        assert_eq!(join.client, expected);
        assert_eq!(join.bot_token, "");
    }
}
