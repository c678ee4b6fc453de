//! A client of LiveKit's room service: Twirp, which is JSON over POST.

use std::time::{SystemTime, UNIX_EPOCH};

use callbox_core::Fault;
use reqwest::{Url, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::token::{Claims, Grants, Keys};

/// How long a token for one call is good.
const TOKEN_S: i64 = 60;
/// Largest answer that is read, in bytes. A list has no pages; a room in it takes some 400 bytes.
const LARGEST: usize = 32 * 1024 * 1024;

/// A client of one project. Repeats nothing; the caller's time limit is the only one.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    keys: Keys,
}

/// A room, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Room {
    pub name: String,
    pub metadata: String,
    /// Milliseconds since the epoch, as a text.
    pub creation_time_ms: String,
    /// Seconds since the epoch, as a text: of servers that do not say it more exactly.
    pub creation_time: String,
}

/// A participant, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Participant {
    pub identity: String,
    /// `JOINING`, `JOINED`, `ACTIVE` or `DISCONNECTED`.
    pub state: String,
    /// `STANDARD`, `AGENT`, `SIP`, `EGRESS`, …; absent where it is the first of them.
    pub kind: String,
}

/// What a new room is to be.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NewRoom {
    pub name: String,
    /// For so many seconds it stays when nobody came yet.
    pub empty_timeout: u32,
    /// For so many seconds it stays when all have left.
    pub departure_timeout: u32,
    pub metadata: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rooms {
    rooms: Vec<Room>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Participants {
    participants: Vec<Participant>,
}

/// An error's body.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    code: String,
    msg: String,
}

impl Client {
    /// Of the server at `base` (`http` or `https`). Asks nothing of anybody.
    pub fn new(http: reqwest::Client, base: Url, keys: Keys) -> Client {
        Client { http, base, keys }
    }

    /// Makes a room; one of that name is the one.
    pub async fn create_room(&self, room: &NewRoom) -> Result<(), Fault> {
        let grants = Grants { room_create: true, ..Grants::default() };
        let _made: Room = self.call("CreateRoom", grants, room).await?;
        Ok(())
    }

    /// Ends a room and throws everybody out.
    pub async fn delete_room(&self, room: &str) -> Result<(), Fault> {
        let grants = Grants { room_create: true, ..Grants::default() };
        let _nothing: serde_json::Value =
            self.call("DeleteRoom", grants, &json!({ "room": room })).await?;
        Ok(())
    }

    /// Those of these names that there are; all where none is named.
    pub async fn list_rooms(&self, names: &[&str]) -> Result<Vec<Room>, Fault> {
        let grants = Grants { room_list: true, ..Grants::default() };
        let Rooms { rooms } = self.call("ListRooms", grants, &json!({ "names": names })).await?;
        Ok(rooms)
    }

    /// Who is in a room; nobody where there is no such room.
    pub async fn list_participants(&self, room: &str) -> Result<Vec<Participant>, Fault> {
        let grants = Grants { room_admin: true, room: room.to_owned(), ..Grants::default() };
        let Participants { participants } =
            self.call("ListParticipants", grants, &json!({ "room": room })).await?;
        Ok(participants)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        grants: Grants,
        body: &impl Serialize,
    ) -> Result<T, Fault> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["twirp", "livekit.RoomService", method]);
        }
        let now = now_s();
        let claims = Claims {
            not_before: now - TOKEN_S,
            expires: now + TOKEN_S,
            grants,
            ..Claims::default()
        };
        let request = self
            .http
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .bearer_auth(self.keys.sign(&claims))
            .body(serde_json::to_vec(body).expect("texts and numbers"));
        let response = request.send().await.map_err(|error| broken(method, &error))?;
        let status = response.status().as_u16();
        let body = read(method, response).await?;
        if !(200..300).contains(&status) {
            return Err(classify(method, status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| {
            Fault::unknown(format!("LiveKit's answer to {method} makes no sense: {error}"))
        })
    }
}

/// Seconds since the epoch, by this host's clock: only for what is sent or came right now.
pub(super) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

async fn read(method: &str, mut response: reqwest::Response) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(method, &error))? {
        if body.len() + chunk.len() > LARGEST {
            let detail = format!("LiveKit's answer to {method} has more than {LARGEST} bytes");
            return Err(Fault::unknown(detail));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What a broken request means: only what failed while connecting certainly did not happen.
fn broken(method: &str, error: &reqwest::Error) -> Fault {
    // The innermost cause says what happened; the outer ones name the address once more.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_connect() || error.is_builder() {
        return Fault::unavailable(format!("LiveKit was not reached for {method}: {cause}"));
    }
    Fault::unknown(format!("the connection to LiveKit broke during {method}: {cause}"))
}

/// What an answer that is not 2xx means: by Twirp's code, or by its status where something else
/// answered.
fn classify(method: &str, status: u16, body: &[u8]) -> Fault {
    let Said { code, msg } = serde_json::from_slice(body).unwrap_or_else(|_| Said {
        msg: String::from_utf8_lossy(body).chars().take(200).collect(),
        ..Said::default()
    });
    let detail = match code.as_str() {
        "" => format!("LiveKit answered {method} with {status}: {}", msg.trim()),
        code => format!("LiveKit answered {method} with {status} ({code}): {msg}"),
    };
    match (code.as_str(), status) {
        ("not_found", _) => Fault::not_found(detail),
        // Its words quote our token.
        ("unauthenticated" | "permission_denied", _) | (_, 401 | 403) => Fault::refused(format!(
            "LiveKit refused {method} with {status}; check livekit.api_key, livekit.api_secret and \
             this host's clock"
        )),
        ("resource_exhausted" | "unavailable", _) | (_, 429 | 503) => Fault::unavailable(detail),
        ("canceled" | "deadline_exceeded" | "aborted" | "internal" | "unknown" | "dataloss", _)
        | (_, 408 | 500..) => Fault::unknown(detail),
        _ => Fault::refused(detail),
    }
}

#[cfg(test)]
mod tests {
    use callbox_core::FaultKind;

    use super::*;

    #[test]
    fn every_error_says_what_may_have_happened() {
        for (status, body, kind) in [
            (
                404,
                r#"{"code":"not_found","msg":"requested room does not exist"}"#,
                FaultKind::NotFound,
            ),
            (401, r#"{"code":"unauthenticated","msg":"permissions denied"}"#, FaultKind::Refused),
            (401, "invalid API key: x", FaultKind::Refused),
            (400, r#"{"code":"invalid_argument","msg":"no room name"}"#, FaultKind::Refused),
            (412, r#"{"code":"failed_precondition","msg":"x"}"#, FaultKind::Refused),
            (429, r#"{"code":"resource_exhausted","msg":"x"}"#, FaultKind::Unavailable),
            (
                503,
                r#"{"code":"unavailable","msg":"no response from servers"}"#,
                FaultKind::Unavailable,
            ),
            (500, r#"{"code":"internal","msg":"could not lock room"}"#, FaultKind::Unknown),
            (408, r#"{"code":"deadline_exceeded","msg":"x"}"#, FaultKind::Unknown),
            (502, "<html>bad gateway</html>", FaultKind::Unknown),
            (301, "", FaultKind::Refused),
            (404, "404 page not found", FaultKind::Refused),
        ] {
            let fault = classify("CreateRoom", status, body.as_bytes());
            assert_eq!(fault.kind, kind, "{status} {body}: {}", fault.detail);
        }
    }

    #[tokio::test]
    async fn what_was_never_sent_did_not_happen() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");
        drop(taken);
        let base = Url::parse(&format!("http://{address}")).expect("an address");
        let client = Client::new(crate::livekit::tests::http(), base, Keys::new("k", "geheim"));
        let fault = client.delete_room("r").await.expect_err("nobody is there");
        assert_eq!(fault.kind, FaultKind::Unavailable, "{}", fault.detail);
        assert!(!fault.detail.contains("geheim"));
    }
}
