//! The bot behind the stand-in's websocket.

use axum::extract::ws::{Message, WebSocket};
use callbox_protocol::api::{Outcome, SessionState};
use prost::Message as _;

use super::media::{AudioRaw, Frame, JsonMessage, Payload};
use super::{Mood, Shared};

/// So many frames of 20 ms without a voice end an utterance.
const GATE: usize = 15;

/// Until the client hangs up.
pub async fn talk(shared: &Shared, mood: &Mood, id: &str, mut socket: WebSocket) {
    let first = receive(&mut socket).await.expect("a first message");
    let Some(Payload::Message(message)) = &first.payload else { panic!("first came {first:?}") };
    assert!(message.data.contains(r#""type":"client-ready""#), "{}", message.data);
    shared.lines.send_modify(|lines| *lines += 1);
    if *mood == Mood::Stuck {
        while receive(&mut socket).await.is_some() {}
        return;
    }
    shared.change(id, |session| {
        session.state = SessionState::Live;
        session.stages_ms.joined = Some(250.0);
    });
    let ready = r#"{"label":"rtvi-ai","type":"bot-ready","id":"x","data":{}}"#;
    send(&mut socket, Payload::Message(JsonMessage { data: ready.into() })).await;
    if *mood != Mood::Mute {
        say(&mut socket, &tone(440.0, 300)).await;
        shared.change(id, |session| session.stages_ms.audible = Some(300.0));
    }
    if *mood == Mood::DiesInCall {
        shared.end(id, Outcome::Failed, "bot-failed", "exit status 1");
        return;
    }
    listen(shared, mood, &mut socket).await;
}

async fn listen(shared: &Shared, mood: &Mood, socket: &mut WebSocket) {
    let (mut utterance, mut quiet, mut voiced) = (Vec::new(), 0, false);
    while let Some(frame) = receive(socket).await {
        let Some(Payload::Audio(audio)) = frame.payload else { continue };
        assert_eq!((audio.sample_rate, audio.num_channels, audio.audio.len()), (16_000, 1, 640));
        *shared.got.lock().unwrap() += audio.audio.len();
        let loud = audio
            .audio
            .chunks(2)
            .any(|pair| i16::from_le_bytes([pair[0], pair[1]]).unsigned_abs() > 500);
        voiced |= loud;
        quiet = if loud { 0 } else { quiet + 1 };
        if voiced {
            utterance.extend_from_slice(&audio.audio);
        }
        if voiced && quiet > GATE {
            match mood {
                Mood::Parrot => say(socket, &std::mem::take(&mut utterance)).await,
                Mood::Talker => say(socket, &tone(300.0, 400)).await,
                _ => {}
            }
            (utterance, voiced) = (Vec::new(), false);
        }
    }
}

/// In pieces of 40 ms, as Pipecat does; text messages and nonsense in between, which clients
/// have to put up with.
async fn say(socket: &mut WebSocket, audio: &[u8]) {
    for piece in audio.chunks(1_280) {
        let audio = AudioRaw {
            audio: piece.to_vec().into(),
            sample_rate: 16_000,
            num_channels: 1,
            ..AudioRaw::default()
        };
        send(socket, Payload::Audio(audio)).await;
    }
    let _ = socket.send(Message::Text("not a frame".into())).await;
    let _ = socket.send(Message::Binary(vec![0xff; 7].into())).await;
}

fn tone(hertz: f64, millis: u32) -> Vec<u8> {
    (0..16 * millis)
        .map(|n| ((f64::from(n) / 16_000.0 * hertz * std::f64::consts::TAU).sin() * 6_000.0) as i16)
        .flat_map(i16::to_le_bytes)
        .collect()
}

async fn send(socket: &mut WebSocket, payload: Payload) {
    let _ = socket.send(Message::Binary(Frame::from(payload).encode_to_vec().into())).await;
}

async fn receive(socket: &mut WebSocket) -> Option<Frame> {
    loop {
        match socket.recv().await?.ok()? {
            Message::Binary(bytes) => return Some(Frame::decode(bytes).unwrap()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}
