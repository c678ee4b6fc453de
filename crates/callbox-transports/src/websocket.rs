//! Transport `websocket`: the client's media socket ends at the dispatcher, which carries it to
//! the bot frame by frame. Nothing has to be made outside.

use async_trait::async_trait;
use callbox_core::{Fault, SessionId};
use serde_json::json;

use crate::{Join, Plan, Room, SessionTokens, Transport};

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Websocket {
    tokens: SessionTokens,
}

impl Websocket {
    /// With the tokens of this deployment.
    pub fn new(tokens: SessionTokens) -> Websocket {
        Websocket { tokens }
    }
}

#[async_trait]
impl Transport for Websocket {
    fn name(&self) -> &'static str {
        "websocket"
    }

    fn carries_media(&self) -> bool {
        true
    }

    fn plan(&self, plan: &Plan<'_>) -> Join {
        let Plan { room, base_url, bot_port } = plan;
        let session = room.session;
        let token = self.tokens.sign(session);
        Join {
            // Exactly these two keys: the JavaScript client throws on any other.
            client: json!({ "wsUrl": format!("{base_url}/ws/{session}"), "token": token }),
            bot_room_url: format!("ws://127.0.0.1:{bot_port}/ws"),
            bot_token: String::new(),
        }
    }

    async fn open(&self, _room: &Room) -> Result<(), Fault> {
        Ok(())
    }

    async fn close(&self, _session: SessionId) -> Result<(), Fault> {
        Ok(())
    }
}
