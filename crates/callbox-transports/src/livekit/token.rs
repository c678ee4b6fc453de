//! LiveKit's tokens: JWTs signed with the API secret (HS256), made and checked here.
//!
//! The crate `livekit-api` would bring some 190 packages for these few lines
//! ([why](../../../../docs/decisions/2026-11-24-livekits-tokens-are-signed-by-hand.md)).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::Mac as _;
use serde::{Deserialize, Serialize};

use crate::jwt;

/// Clocks of two hosts may differ by so much; LiveKit allows the same.
const LEEWAY_S: i64 = 60;

/// A key of a LiveKit project and its secret.
#[derive(Clone)]
pub(super) struct Keys {
    key: String,
    secret: Vec<u8>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What a token says. Times are seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Claims {
    /// Who it is about: a participant's identity. None where it is about nobody.
    #[serde(rename = "sub", skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    #[serde(rename = "nbf")]
    pub not_before: i64,
    #[serde(rename = "exp")]
    pub expires: i64,
    /// What others see of a participant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(rename = "video")]
    pub grants: Grants,
}

/// What a token allows; what is absent is not allowed. Publishing, subscribing and data are
/// LiveKit's defaults for whoever may join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Grants {
    #[serde(skip_serializing_if = "is_false")]
    pub room_create: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_list: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_admin: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_join: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room: String,
    /// Marks a participant as a bot.
    #[serde(skip_serializing_if = "is_false")]
    pub agent: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde wants it
fn is_false(value: &bool) -> bool {
    !value
}

/// The words of a signed token, of which a webhook's is one.
#[derive(Serialize)]
struct Issued<'a> {
    iss: &'a str,
    #[serde(flatten)]
    claims: &'a Claims,
}

/// What is read of a webhook's token.
#[derive(Deserialize)]
struct Hook {
    iss: String,
    #[serde(default)]
    nbf: i64,
    exp: i64,
    #[serde(default)]
    sha256: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

impl Keys {
    pub fn new(key: impl Into<String>, secret: impl Into<Vec<u8>>) -> Keys {
        Keys { key: key.into(), secret: secret.into() }
    }

    /// The same claims have the same token.
    pub fn sign(&self, claims: &Claims) -> String {
        jwt::sign(&Issued { iss: &self.key, claims }, &self.secret)
    }

    /// The hash of the body that a webhook's token vouches for, if it is ours and valid at `now`
    /// (seconds since the epoch).
    pub fn vouched_hash(&self, token: &str, now: i64) -> Option<String> {
        let (said, signature) = token.rsplit_once('.')?;
        let (header, issued) = said.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        jwt::mac(said, &self.secret).verify_slice(&signature).ok()?;
        let header: Header = decode(header)?;
        let hook: Hook = decode(issued)?;
        let valid = hook.nbf - LEEWAY_S <= now && now <= hook.exp + LEEWAY_S;
        (header.alg == "HS256" && hook.iss == self.key && valid).then_some(hook.sha256)
    }
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with LiveKit's own library.
    const JOIN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJkZXZrZXkiLCJzdWIiOiJ1c2VyLTEiLCJuYmYiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAyMTYwMCwibmFtZSI6IlVzZXIiLCJ2aWRlbyI6eyJyb29tSm9pbiI6dHJ1ZSwicm9vbSI6InBpcGVjYXQtYWIxMiJ9fQ.dr3qn9zk5M9ZLE_wsYSr7jTmv46eJ1T0JnhQ3Az5SdM";

    #[test]
    fn a_token_is_as_livekits_own_library_makes_it() {
        let grants = Grants { room_join: true, room: "pipecat-ab12".into(), ..Grants::default() };
        let claims = Claims {
            identity: Some("user-1".into()),
            not_before: 1_700_000_000,
            expires: 1_700_021_600,
            name: Some("User".into()),
            grants,
        };
        assert_eq!(Keys::new("devkey", "secret").sign(&claims), JOIN);
    }

    #[test]
    fn only_what_our_secret_signed_in_time_vouches_for_a_body() {
        let keys = Keys::new("devkey", "secret");
        let token = |header: &str, issued: &str| {
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let said = format!("{}.{}", part(header), part(issued));
            let signature =
                URL_SAFE_NO_PAD.encode(jwt::mac(&said, &keys.secret).finalize().into_bytes());
            format!("{said}.{signature}")
        };
        let hs256 = r#"{"alg":"HS256"}"#;
        let good = token(hs256, r#"{"iss":"devkey","nbf":1000,"exp":1300,"sha256":"hash"}"#);
        assert_eq!(keys.vouched_hash(&good, 1100).as_deref(), Some("hash"));
        assert_eq!(keys.vouched_hash(&good, 939), None, "not yet");
        assert_eq!(keys.vouched_hash(&good, 1361), None, "no longer");
        assert_eq!(Keys::new("devkey", "other").vouched_hash(&good, 1100), None);
        assert_eq!(Keys::new("other", "secret").vouched_hash(&good, 1100), None);
        let plain = token(r#"{"alg":"none"}"#, r#"{"iss":"devkey","exp":1300,"sha256":"hash"}"#);
        assert_eq!(keys.vouched_hash(&plain, 1100), None);
        for bad in ["", ".", "..", "a.b.c", &good[..good.len() - 1], &format!("{good}.")] {
            assert_eq!(keys.vouched_hash(bad, 1100), None, "{bad:?}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        assert!(!format!("{:?}", Keys::new("devkey", "geheim")).contains("geheim"));
    }
}
