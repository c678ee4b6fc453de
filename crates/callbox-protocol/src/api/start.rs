//! What a start asks for, and what it is answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Body of `POST /start` (Pipecat's development runner) and
/// `POST /v1/public/{bot}/start` (Pipecat Cloud). All optional; unknown keys are accepted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StartRequest {
    /// Which bot; our addition to the runner's shape. May be left out where one bot is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bot: Option<String>,
    /// `websocket` | `daily` | `livekit` | `webrtc`; the bot's first transport when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// Handed to the bot as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// What you call the session by, to find it in lists; our addition to the runner's shape. At
    /// most 16, names of 1 to 64 and values of up to 256 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Asks for transport `daily` where `transport` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_daily_room: Option<bool>,
    /// Properties of the Daily room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_room_properties: Option<Map<String, Value>>,
    /// Properties of the Daily meeting token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_meeting_token_properties: Option<Map<String, Value>>,
    /// Asks for ICE servers in the answer (transport `webrtc`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_default_ice_servers: Option<bool>,
}

/// Answer of a start with transport `websocket`: exactly these keys.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct WebsocketJoin {
    /// Where the client opens its media websocket.
    pub ws_url: String,
    /// `<session id>.<hex HMAC>`: opens the websocket (`?token=`) and lets its holder watch and
    /// end this one session.
    pub token: String,
}

/// Answer of a start with transport `daily`: the keys of Pipecat's runner and of Pipecat Cloud.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DailyJoin {
    /// Address of the room.
    pub daily_room: String,
    /// The client's own meeting token, with which it comes in.
    pub daily_token: String,
    /// The session's id.
    pub session_id: String,
}

/// Answer of a start, by its transport.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Join {
    /// `websocket`.
    Websocket(WebsocketJoin),
    /// `daily`.
    Daily(DailyJoin),
}
