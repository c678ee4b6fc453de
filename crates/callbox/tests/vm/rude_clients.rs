//! Clients that leave when they like and send what they like.

use tokio_tungstenite::tungstenite::Message;

use crate::support::{Dispatcher, Home, PATIENCE, SOON, Wire, until};

const BOTS: &str = r#"
[limits]
max_held_bytes = 100000

[bots.parrot]
image = "parrot"

[bots.cold]
image = "tiny"
start = "cold"
memory_mib = 256
disk_mib = 64

[bots.tiny]
image = "tiny"
memory_mib = 256
disk_mib = 64
"#;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_client_does_hurts_the_dispatcher() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    leaves_while_the_machine_boots(&dispatcher).await;
    sends_too_much_while_the_machine_boots(&dispatcher).await;
    sends_what_no_bot_understands(&dispatcher).await;
    sends_more_than_a_message_may_have(&dispatcher).await;
    talks_rubbish_to_the_parrot(&dispatcher).await;
    comes_where_it_has_no_business(&dispatcher).await;
    dispatcher.assert_alive().await;
    dispatcher.stop().await;
}

async fn leaves_while_the_machine_boots(dispatcher: &Dispatcher<'_>) {
    for polite in [true, false] {
        let session = dispatcher.start("cold").await;
        let mut wire = Wire::join(&session).await;
        wire.send("hello?").await.unwrap();
        until("a machine boots", PATIENCE, || dispatcher.home.machines() == 1).await;
        if polite {
            wire.hang_up().await;
        } else {
            drop(wire);
        }
        assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
        assert_eq!(dispatcher.home.machines(), 0);
        let session = dispatcher.session(&session.id).await;
        assert_eq!(
            session["moments"]["ready"],
            serde_json::Value::Null,
            "it left before: {session}"
        );
    }
}

async fn sends_too_much_while_the_machine_boots(dispatcher: &Dispatcher<'_>) {
    let session = dispatcher.start("cold").await;
    let mut wire = Wire::join(&session).await;
    // The dispatcher may hang up while this is on its way.
    let _ = wire.send(vec![7; 200_000]).await;
    wire.closed().await;
    let (code, detail) = dispatcher.end_of(&session.id).await;
    assert_eq!(code, "client-overflow", "{detail}");
    assert!(detail.contains("100000"), "{detail}");
}

/// An echo, so that what arrives there can be seen here.
async fn sends_what_no_bot_understands(dispatcher: &Dispatcher<'_>) {
    let session = dispatcher.start("tiny").await;
    let mut wire = Wire::join(&session).await;
    let rubbish = [
        // Held until the bot is ready, then delivered first.
        Message::text("not protobuf at all \u{0} \u{1f4a9}"),
        Message::binary(random(1_000)),
        Message::binary(Vec::new()),
        Message::text(""),
        Message::binary(random(70_000)),
    ];
    for message in &rubbish {
        wire.send(message.clone()).await.unwrap();
    }
    for message in rubbish {
        assert_eq!(wire.next().await, message);
    }
    let megabyte = Message::binary(random(1 << 20));
    wire.send(megabyte.clone()).await.unwrap();
    assert_eq!(wire.next().await, megabyte);
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
}

async fn sends_more_than_a_message_may_have(dispatcher: &Dispatcher<'_>) {
    let session = dispatcher.start("tiny").await;
    dispatcher.when("ready", &session.id).await;
    let mut wire = Wire::join(&session).await;
    let _ = wire.send(random((1 << 20) + 1)).await;
    wire.closed().await;
    let (code, detail) = dispatcher.end_of(&session.id).await;
    assert_eq!(code, "client-left", "{detail}");
}

/// A real Pipecat: whether it bears it is its business, but the session must come to its end.
async fn talks_rubbish_to_the_parrot(dispatcher: &Dispatcher<'_>) {
    let session = dispatcher.start("parrot").await;
    let mut wire = Wire::join(&session).await;
    dispatcher.when("ready", &session.id).await;
    let rubbish = [
        Message::text("rubbish"),
        Message::binary(random(1_000)),
        Message::binary(Vec::new()),
        // Audio by its first byte, and nothing of the kind.
        Message::binary([&[0x12, 0xff, 0xff, 0xff, 0x7f][..], &random(500)].concat()),
        // A frame of audio with an odd number of bytes, at no rate at all.
        Message::binary(vec![0x12, 0x05, 0x1a, 0x03, 1, 2, 3]),
    ];
    for message in rubbish {
        if wire.send(message).await.is_err() {
            break;
        }
    }
    wire.hang_up().await;
    let (code, detail) = dispatcher.end_of(&session.id).await;
    assert!(["client-left", "bot-failed", "bot-finished"].contains(&code.as_str()), "{detail}");
}

async fn comes_where_it_has_no_business(dispatcher: &Dispatcher<'_>) {
    let session = dispatcher.start("tiny").await;
    for token in ["", "x", &session.token.replace('.', "")] {
        let url = format!("{}?token={token}", session.ws_url);
        let refused = tokio_tungstenite::connect_async(url).await;
        assert!(refused.is_err(), "token {token:?} opened the line");
    }
    let wire = Wire::join(&session).await;
    let second = format!("{}?token={}", session.ws_url, session.token);
    assert!(tokio_tungstenite::connect_async(second.clone()).await.is_err(), "two clients");
    wire.hang_up().await;
    dispatcher.end_of(&session.id).await;
    assert!(tokio_tungstenite::connect_async(second).await.is_err(), "the session has ended");
    until("its machine is gone", SOON, || dispatcher.home.machines() == 0).await;
}

/// The same every time, so that what fails fails again.
fn random(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(byte).take(size).collect()
}
