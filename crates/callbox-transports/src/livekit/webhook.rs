//! LiveKit's webhooks: who vouches for one, and what it says.
//!
//! They are retried for some seconds and then dropped, so they only make it quick; looking who is
//! in the room makes it right.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{client::Participant, token::Keys};
use crate::WebhookRefusal;

/// A webhook, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Hook {
    pub event: String,
    pub room: Room,
    /// Whom it is about.
    pub participant: Participant,
}

/// The room that it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Room {
    pub name: String,
}

/// Reads a webhook whose header `Authorization` is a token of ours with the body's hash.
pub(super) fn read(
    keys: &Keys,
    authorization: &str,
    body: &[u8],
    now: i64,
) -> Result<Hook, WebhookRefusal> {
    let unsigned = WebhookRefusal::Unsigned("no token of ours vouches for this body now");
    let vouched = keys.vouched_hash(authorization, now);
    // No secret is compared: the token was checked, and the body's hash is everybody's.
    if vouched != Some(STANDARD.encode(Sha256::digest(body))) {
        return Err(unsigned);
    }
    serde_json::from_slice(body).map_err(|error| WebhookRefusal::Unreadable(error.to_string()))
}
