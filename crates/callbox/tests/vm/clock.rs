//! A host whose clock is set while calls are under way.

use std::{fs, path::PathBuf};

use tokio_tungstenite::tungstenite::Message;

use crate::support::{Dispatcher, Home, PATIENCE, Setting, Started, Wire, until};

const BOTS: &str = r#"
[bots.tiny]
image = "tiny"
memory_mib = 256
disk_mib = 64

[bots.tiny.timeouts]
live_s = 1800
"#;

/// Debian's `libfaketime`, which moves the wall clock of one process.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[tokio::test(flavor = "multi_thread")]
async fn a_host_clock_that_jumps_ends_no_call_and_holds_none() {
    let library = PathBuf::from(LIBRARY);
    assert!(library.exists(), "no {LIBRARY}; `cargo xtask test vm` installs it (libfaketime)");
    let home = Home::new();
    let clock = home.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let environment = [
        ("LD_PRELOAD", LIBRARY),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let setting = Setting { environment: &environment, ..Setting::default() };
    let mut dispatcher = Dispatcher::ready_as(&home, BOTS, &setting).await;
    let first = call(&dispatcher, "before").await;

    // Longer than the longest call, and than everything that has a deadline.
    for (jump, text) in [("+3h", "an hour ahead"), ("-3h", "six hours back")] {
        fs::write(&clock, jump).unwrap();
        let (session, mut wire) = call(&dispatcher, text).await;
        assert_eq!(dispatcher.session(&session.id).await["state"], "live");
        assert_eq!(dispatcher.session(&first.0.id).await["state"], "live", "after {jump}");
        echo(&mut wire, text).await;
        wire.hang_up().await;
        assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");

        // The next dispatcher goes on with the clock of this one.
        until("its distance is written down", PATIENCE, || against(&home, jump)).await;
        dispatcher.kill().await;
        dispatcher = Dispatcher::ready_as(&home, BOTS, &setting).await;
        let left = dispatcher.session(&first.0.id).await;
        assert_eq!(left["state"], "live", "restarted after {jump}: {left}");
        let began = left["moments"]["joined"].as_str().unwrap().parse::<jiff::Timestamp>();
        let (session, wire) = call(&dispatcher, "restarted").await;
        let now = dispatcher.session(&session.id).await;
        let now = now["moments"]["joined"].as_str().unwrap().parse::<jiff::Timestamp>();
        let between = now.unwrap().duration_since(began.unwrap()).as_secs();
        assert!((0..1800).contains(&between), "{between} s between two calls, after {jump}");
        wire.hang_up().await;
    }
    assert!(home.log().contains("the host's clock was set"), "it did not jump");
    let (session, mut wire) = first;
    echo(&mut wire, "after").await;
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    dispatcher.stop().await;
}

/// Whether the clock is known to be two hours at least on the other side of the jump.
fn against(home: &Home, jump: &str) -> bool {
    let away = fs::read_to_string(home.data().join("clock")).unwrap_or_default();
    let away: i64 = away.trim().parse().unwrap_or(0);
    away.abs() > 2 * 3600 * 1_000_000 && (away < 0) == jump.starts_with('+')
}

async fn call(dispatcher: &Dispatcher<'_>, text: &str) -> (Started, Wire) {
    let session = dispatcher.start("tiny").await;
    let mut wire = Wire::join(&session).await;
    echo(&mut wire, text).await;
    (session, wire)
}

async fn echo(wire: &mut Wire, text: &str) {
    wire.send(text).await.unwrap();
    assert_eq!(wire.next().await, Message::text(text));
}
