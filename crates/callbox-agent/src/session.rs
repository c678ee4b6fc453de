//! Handing the session to the bot.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use callbox_protocol::agent::{
    CommandReady, Contract, Phase, Prepare, SessionAccepted, SessionData,
};
use http::Method;
use serde_json::Value;

use crate::end;
use crate::loopback;
use crate::machine::Machine;
use crate::private;
use crate::program;
use crate::ready::{self, Outcome, Sign};
use crate::refusal::Refusal;

/// Accepts the session, and goes on without the host: readiness comes as an event.
pub(crate) fn accept(
    machine: &Arc<Machine>,
    session: SessionData,
) -> Result<SessionAccepted, Refusal> {
    let session_id = session.session_id.clone();
    if machine.session() == Some((session_id.clone(), session.incarnation)) {
        // Asked again, because the host did not see the answer.
        return Ok(SessionAccepted { session_id });
    }
    let _turn = machine.begin("session", &[Phase::Awake])?;
    let prepare = machine.prepared();
    let prepare = prepare.ok_or_else(|| Refusal::wrong_phase("session", machine.phase()))?;
    let argv = match prepare.contract {
        Contract::Command { .. } => {
            program::fill(&prepare.argv, &session).map_err(Refusal::bad_request)?
        }
        Contract::Http { .. } => Vec::new(),
    };
    let secrets = serde_json::to_vec(&session.env).unwrap_or_default();
    let path = machine.place.run_dir.join("env.json");
    private::write(&path, &prepare, &secrets).map_err(|error| {
        Refusal::internal(format!("the bot's secrets cannot be written for it: {error}"))
    })?;
    machine.set_session(session_id.clone(), session.incarnation);
    machine.logs.say(&format!("session {session_id} over {}", session.transport));
    if let Some(longest) = session.longest_life_ms.map(Duration::from_millis) {
        tokio::spawn(end::after_the_longest_life(Arc::clone(machine), longest));
    }
    let machine = Arc::clone(machine);
    tokio::spawn(async move {
        match prepare.contract {
            Contract::Command { ready, .. } => {
                run(&machine, &prepare, &argv, &session, ready).await
            }
            Contract::Http { .. } => hand_over(&machine, &prepare, &session).await,
        }
    });
    Ok(SessionAccepted { session_id })
}

/// `command`: the process is the session.
async fn run(
    machine: &Arc<Machine>,
    prepare: &Prepare,
    argv: &[String],
    session: &SessionData,
    ready: CommandReady,
) {
    let mut env = prepare.env.clone();
    env.extend(session.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    for (name, value) in [
        ("CALLBOX_SESSION_ID", session.session_id.clone()),
        ("CALLBOX_INCARNATION", session.incarnation.to_string()),
        ("CALLBOX_ROOM_URL", session.room_url.clone()),
        ("CALLBOX_TOKEN", session.token.clone()),
        ("CALLBOX_BODY", session.body.to_string()),
    ] {
        env.insert(name.to_owned(), value);
    }
    let bot = match machine.launch(prepare, argv, &env) {
        Ok(bot) => bot,
        Err(error) => {
            machine.logs.say(&format!("the bot was not started: {error}"));
            machine.events.not_ready(error.to_string());
            machine.advance(Phase::Over);
            return;
        }
    };
    if ready == CommandReady::Started {
        machine.events.ready();
        return;
    }
    let time = Duration::from_millis(prepare.ready_timeout_ms);
    match ready::wait(Sign::Listening(prepare.port), &bot, time).await {
        Outcome::Ready => machine.events.ready(),
        Outcome::Late(detail) => machine.events.not_ready(detail),
        // Reported by whoever waits for the end of the process.
        Outcome::Exited(_) => {}
    }
}

/// `http`: the bot waits already.
async fn hand_over(machine: &Arc<Machine>, prepare: &Prepare, session: &SessionData) {
    let Some(bot) = machine.bot() else {
        machine.events.not_ready("the bot's process is gone".to_owned());
        return;
    };
    let time = Duration::from_millis(prepare.ready_timeout_ms);
    match ready::wait(Sign::Readyz(prepare.port), &bot, time).await {
        Outcome::Ready => machine.events.ready(),
        Outcome::Late(detail) => return machine.events.not_ready(detail),
        Outcome::Exited(_) => return,
    }
    if !matches!(session.transport.as_str(), "daily" | "livekit" | "webrtc") {
        return;
    }
    // The answer comes when the bot has left the room.
    let left = enter_room(prepare.port, session).await;
    if bot.exited().is_some() {
        return;
    }
    let code = match left {
        Ok(status @ 200..=299) => {
            machine.logs.say(&format!("the bot left its room (POST /bot answered {status})"));
            0
        }
        Ok(status) => {
            machine.logs.say(&format!("the bot failed (POST /bot answered {status})"));
            1
        }
        Err(error) => {
            machine.logs.say(&format!("the bot broke off (POST /bot: {error})"));
            1
        }
    };
    machine.events.over(Some(code), None, false);
    machine.advance(Phase::Over);
}

async fn enter_room(port: u16, session: &SessionData) -> io::Result<u16> {
    let room_name = room_name(session);
    let incarnation = session.incarnation.to_string();
    let mut headers = vec![
        ("x-daily-session-id", session.session_id.as_str()),
        ("x-callbox-incarnation", incarnation.as_str()),
        ("x-daily-transport-type", session.transport.as_str()),
    ];
    // Pipecat's base image knows the first kind of room; `callbox-bot` knows all. For `webrtc` the
    // "token" is which servers ways to the client are looked for with.
    if session.transport == "daily" {
        headers.extend([
            ("x-daily-room-url", session.room_url.as_str()),
            ("x-daily-room-token", session.token.as_str()),
        ]);
    } else {
        headers.extend([
            ("x-callbox-transport", session.transport.as_str()),
            ("x-callbox-room-url", session.room_url.as_str()),
            ("x-callbox-room-token", session.token.as_str()),
            ("x-callbox-room-name", room_name.as_str()),
        ]);
    }
    // The base image insists on an object.
    let body = match &session.body {
        Value::Object(_) => session.body.to_string(),
        _ => "{}".to_owned(),
    };
    let answer = loopback::ask(port, Method::POST, "/bot", &headers, body.into_bytes()).await?;
    Ok(answer.0)
}

/// The room that the session's token opens; a LiveKit URL does not say it. Nothing is decided
/// by it here, so the token's signature does not matter.
fn room_name(session: &SessionData) -> String {
    let claims = session.token.split('.').nth(1).and_then(base64_url).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
    claims["video"]["room"].as_str().unwrap_or(&session.session_id).to_owned()
}

fn base64_url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut bits) = (0u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_livekit_room_is_named_by_its_token() {
        let mut session = SessionData {
            session_id: "s1".to_owned(),
            incarnation: 1,
            bot: "b".to_owned(),
            transport: "livekit".to_owned(),
            room_url: "wss://x".to_owned(),
            // {"video":{"room":"r-1"}}
            token: "e30.eyJ2aWRlbyI6eyJyb29tIjoici0xIn19.sig".to_owned(),
            body: Value::Null,
            env: Default::default(),
            longest_life_ms: None,
        };
        assert_eq!(room_name(&session), "r-1");
        session.token = "not a token".to_owned();
        assert_eq!(room_name(&session), "s1");
    }
}
