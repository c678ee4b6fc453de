//! `[webrtc]`: calls from browser to bot by SmallWebRTC.

use serde::Deserialize;

use super::{ConfigError, secret::SecretSource, wrong};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebrtc {
    ice_servers: Vec<String>,
    turn_secret: SecretSource,
}

/// Calls by SmallWebRTC.
#[derive(Clone, Debug, PartialEq)]
pub struct WebrtcSection {
    /// Addresses of STUN and TURN servers.
    pub ice_servers: Vec<String>,
    /// Where the secret is that TURN servers share with us.
    pub turn_secret: SecretSource,
}

impl WebrtcSection {
    /// Whether the secret is needed.
    pub fn has_turn(&self) -> bool {
        self.ice_servers.iter().any(|url| url.starts_with("turn"))
    }
}

pub(super) fn webrtc(raw: RawWebrtc) -> Result<WebrtcSection, ConfigError> {
    let legal = |url: &String| {
        let rest = ["stun:", "stuns:", "turn:", "turns:"].iter().find_map(|s| url.strip_prefix(s));
        rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
    };
    if let Some(other) = raw.ice_servers.iter().find(|url| !legal(url)) {
        let problem = format!("{other:?} is not like \"turn:turn.example.com:3478\"");
        return Err(wrong("webrtc.ice_servers", problem));
    }
    Ok(WebrtcSection { ice_servers: raw.ice_servers, turn_secret: raw.turn_secret })
}
