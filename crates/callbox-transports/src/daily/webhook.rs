//! What Daily tells by itself: `participant.joined`, `participant.left`, `meeting.ended`.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::Mutex,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use callbox_core::Time;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use serde::Deserialize;
use sha2::Sha256;

use super::options::BOT_USER;
use crate::{Sight, WebhookRefusal};

/// What was sent longer ago, or longer ahead, is not fresh. Daily repeats for 15 minutes, each
/// time with a new timestamp as far as anybody knows.
const FRESH: Duration = Duration::from_secs(300);
/// So many ids are remembered: what comes twice is news once.
const REMEMBERED: usize = 4096;

/// Checks and reads them.
pub(super) struct Webhooks {
    secret: Vec<u8>,
    seen: Mutex<(HashSet<String>, VecDeque<String>)>,
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhooks(…)")
    }
}

/// As far as it is read.
#[derive(Deserialize)]
struct Webhook {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    payload: Payload,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    room: String,
    /// Of older versions of `meeting.*`.
    room_name: String,
    user_id: Option<String>,
}

impl Webhooks {
    /// With the secret that Daily signs with, in base64 as Daily shows it; none if it is not that.
    pub fn new(secret: &str) -> Option<Webhooks> {
        let secret = STANDARD.decode(secret.trim()).ok().filter(|secret| !secret.is_empty())?;
        Some(Webhooks { secret, seen: Mutex::default() })
    }

    /// The room and what was seen in it; none for what is no news.
    pub fn read(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Time,
    ) -> Result<Option<(String, Sight)>, WebhookRefusal> {
        // Sent when a webhook is set up, perhaps before its secret is agreed on; says nothing.
        if is_test(body) {
            return Ok(None);
        }
        self.check(headers, body, now)?;
        let webhook: Webhook = serde_json::from_slice(body)
            .map_err(|error| WebhookRefusal::Unreadable(error.to_string()))?;
        let sight = match webhook.kind.as_str() {
            "participant.joined" if webhook.payload.user_id.as_deref() == Some(BOT_USER) => {
                Sight::BotJoined
            }
            "participant.joined" => Sight::ClientJoined,
            "participant.left" | "meeting.ended" => Sight::Changed,
            _ => return Ok(None),
        };
        if !webhook.id.is_empty() && !self.is_first(webhook.id) {
            return Ok(None);
        }
        let Payload { room, room_name, .. } = webhook.payload;
        let room = if room.is_empty() { room_name } else { room };
        Ok(Some((room, sight)).filter(|(room, _)| !room.is_empty()))
    }

    fn check(&self, headers: &HeaderMap, body: &[u8], now: Time) -> Result<(), WebhookRefusal> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let unsigned = WebhookRefusal::Unsigned;
        let sent = header("x-webhook-timestamp").ok_or(unsigned("it has no timestamp"))?;
        let signature = header("x-webhook-signature").ok_or(unsigned("it is not signed"))?;
        let signature =
            STANDARD.decode(signature).map_err(|_| unsigned("its signature is none"))?;
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(sent.as_bytes());
        mac.update(b".");
        mac.update(body);
        mac.verify_slice(&signature).map_err(|_| unsigned("its signature is not Daily's"))?;
        let sent: i64 = sent.parse().map_err(|_| unsigned("its timestamp is none"))?;
        // Seconds by the documentation; milliseconds have been seen with calls that dial in.
        let micros = if sent > 100_000_000_000 { 1000 } else { 1_000_000 };
        let sent = Time::from_micros(sent.saturating_mul(micros));
        match now.since(sent).max(sent.since(now)) > FRESH {
            true => Err(unsigned("it is too old")),
            false => Ok(()),
        }
    }

    fn is_first(&self, id: String) -> bool {
        let mut seen = self.seen.lock().expect("no panic while held");
        let (ids, order) = &mut *seen;
        if !ids.insert(id.clone()) {
            return false;
        }
        order.push_back(id);
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            ids.remove(&oldest);
        }
        true
    }
}

fn is_test(body: &[u8]) -> bool {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body.as_object()
        .is_some_and(|body| body.len() == 1 && body.get("test").is_some_and(|test| test == "test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the reference, appendix A.
    const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const BODY: &[u8] = br#"{"version":"1.1.0","type":"participant.joined","id":"e-1","payload":{"room":"pipecat-ab12","session_id":"s-1"},"event_ts":1700000000.123}"#;
    const SIGNATURE: &str = "EnquRsQJBv1YRKgavtJQigBuAscHyoqVusbK+TjtiVw=";

    fn headers(signature: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-webhook-timestamp", "1700000000".parse().expect("a value"));
        headers.insert("x-webhook-signature", signature.parse().expect("a value"));
        headers
    }

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn only_what_is_signed_and_fresh_is_believed_and_only_once() {
        let webhooks = Webhooks::new(SECRET).expect("base64");
        let read = |headers: &HeaderMap, body: &[u8], now| webhooks.read(headers, body, now);
        let joined = Ok(Some(("pipecat-ab12".to_owned(), Sight::ClientJoined)));
        let (signed, now) = (headers(SIGNATURE), at(1_700_000_010));
        assert!(read(&headers("AAAA"), BODY, now).is_err());
        assert!(read(&HeaderMap::new(), BODY, now).is_err());
        assert!(read(&signed, b"{}", now).is_err());
        assert!(read(&signed, BODY, at(1_700_000_301)).is_err(), "too old");
        assert!(read(&signed, BODY, at(1_699_999_699)).is_err(), "from the future");
        assert_eq!(read(&signed, BODY, now), joined);
        assert_eq!(read(&signed, BODY, now), Ok(None), "it came twice");
        assert_eq!(read(&HeaderMap::new(), br#"{"test":"test"}"#, now), Ok(None));
        assert!(Webhooks::new("geheim!").is_none() && Webhooks::new("").is_none());
    }
}
