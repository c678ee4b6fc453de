//! Calls that go well: a real client, a real machine, a real bot, and the same sound back.

use std::collections::HashSet;

use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Dispatcher, Home, Said, Wire, assert_is_echo};

/// A bot that is a program: no server, no Pipecat.
const COMMAND: &str = r#"
[bots.command]
image = "tiny"
contract = "command"
argv = ["python3", "/app/command/bot.py", "--room-url", "{room_url}", "--token", "{token}"]
memory_mib = 256
disk_mib = 64
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_of_the_parrot_repeats_what_it_hears() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, "[bots.parrot]\nimage = \"parrot\"\n").await;
    let report = call(&dispatcher, "parrot", "clone").await;
    every_command_tells_the_same(&dispatcher, &report).await;
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parrot_that_starts_cold_does_the_same() {
    let home = Home::new();
    let bots = "[bots.parrot]\nimage = \"parrot\"\nstart = \"cold\"\n";
    let dispatcher = Dispatcher::ready(&home, bots).await;
    call(&dispatcher, "parrot", "cold").await;
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_is_just_a_program_echoes() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, COMMAND).await;
    let report = call(&dispatcher, "command", "clone").await;
    let log = dispatcher.log_of(report["session_id"].as_str().unwrap()).await;
    let listening = log.iter().any(|line| line.starts_with("bot:") && line.contains("listening"));
    assert!(listening, "{log:#?}");
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_the_same_time_do_not_meet() {
    let home = Home::new();
    let bot = "[bots.tiny]\nimage = \"tiny\"\nmemory_mib = 256\ndisk_mib = 64\n";
    let dispatcher = Dispatcher::ready(&home, bot).await;
    let mut calls = Vec::new();
    for number in 0..4 {
        let session = dispatcher.start("tiny").await;
        let mut wire = Wire::join(&session).await;
        wire.send(format!("this is caller {number}")).await.unwrap();
        calls.push((session, wire));
    }
    let mut machines = HashSet::new();
    for (number, (session, wire)) in calls.iter_mut().enumerate() {
        assert_eq!(wire.next().await, Message::text(format!("this is caller {number}")));
        let session = dispatcher.session(&session.id).await;
        machines.insert(session["machine"].as_str().unwrap().to_owned());
    }
    assert_eq!((machines.len(), home.machines()), (4, 4));
    for (session, wire) in calls {
        wire.hang_up().await;
        assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    }
    dispatcher.stop().await;
}

/// Calls `bot`, and checks everything that can be known of a call.
async fn call(dispatcher: &Dispatcher<'_>, bot: &str, start: &str) -> Value {
    let said = Said::in_dir(dispatcher.home.path());
    let heard = dispatcher.home.path().join("heard.wav");
    let say = said.wav.to_str().unwrap();
    let out = heard.to_str().unwrap();
    let arguments = [
        "call",
        "--json",
        "--quiet",
        "--bot",
        bot,
        "--say",
        say,
        "--out",
        out,
        "--expect",
        "echo",
        "--timeout",
        "280",
    ];
    let report = dispatcher.run(&arguments).await.expect(0).json();
    assert_eq!(report["bot"], bot, "{report:#}");
    assert_eq!(report["provider"], "local", "{report:#}");
    assert_eq!(report["start"], start, "{report:#}");
    assert!(matches!(report["accelerator"].as_str(), Some("kvm" | "tcg")), "{report:#}");
    assert_eq!(report["outcome"], "completed", "{report:#}");
    assert_eq!(report["end_reason"]["code"], "client-left", "{report:#}");
    assert_eq!(report["heard_wav"], out, "{report:#}");
    assert_eq!(report["session_id"].as_str().map(str::len), Some(36), "{report:#}");
    assert!(!report["start_stages"].as_array().unwrap().is_empty(), "{report:#}");
    check_moments(&report);
    let audio = &report["audio"];
    // 1.5 s of 16-bit sound at 16 kHz, there and back.
    assert!(audio["sent_bytes"].as_u64().unwrap() >= 48_000, "{report:#}");
    assert!(audio["received_bytes"].as_u64().unwrap() >= 48_000, "{report:#}");
    assert!(audio["echo_similarity"].as_f64().unwrap() >= 0.9, "{report:#}");
    assert_is_echo(&said, &heard);
    report
}

/// All five are there, in the order in which they can come.
#[track_caller]
fn check_moments(report: &Value) {
    let at = |moment: &str| {
        let at = report["stages_ms"][moment].as_f64();
        at.unwrap_or_else(|| panic!("no {moment} in {report:#}"))
    };
    assert_eq!(at("accepted"), 0.0, "{report:#}");
    for (earlier, later) in [
        ("accepted", "started"),
        ("started", "ready"),
        ("ready", "audible"),
        ("joined", "audible"),
        ("audible", "ended"),
    ] {
        assert!(at(earlier) <= at(later), "{earlier} after {later} in {report:#}");
    }
}

/// What `ps`, `show` and `logs` say of a call is what the caller was told.
async fn every_command_tells_the_same(dispatcher: &Dispatcher<'_>, report: &Value) {
    let id = report["session_id"].as_str().unwrap();
    let shown = dispatcher.run(&["show", &id[..13], "--json"]).await.expect(0).json();
    for key in ["bot", "provider", "accelerator", "start", "outcome", "end_reason", "start_stages"]
    {
        assert_eq!(shown[key], report[key], "{key}");
    }
    assert_eq!(shown["id"], id);
    assert_eq!(shown["stages_ms"], report["stages_ms"]);
    let listed = dispatcher.run(&["ps", "--all", "--json"]).await.expect(0).json();
    assert_eq!(listed["sessions"], Value::Array(vec![shown]));
    let pictures =
        [vec!["show", id], vec!["ps", "--all"], vec!["logs", id], vec!["stop", id, "--wait", "9"]];
    for arguments in pictures {
        let ran = dispatcher.run(&arguments).await.expect(0);
        assert!(!ran.stdout.is_empty() && !ran.stdout.contains('\u{1b}'), "{ran:?}");
    }
    let log = dispatcher.log_of(id).await;
    for words in ["agent: session ", "repeating 1.", "dispatcher: live", "dispatcher: ended"] {
        assert!(log.iter().any(|line| line.contains(words)), "no {words:?} in {log:#?}");
    }
}
