//! `callbox call` end to end: the program itself against a dispatcher in miniature.

use crate::support::binary::{begin, callbox, callbox_with, finish, interrupt, short_word};
use crate::support::{Mood, StandIn};
use callbox_protocol::api::SessionState;
use serde_json::json;

#[tokio::test]
async fn what_was_said_comes_back() {
    let stand_in = StandIn::new(Mood::Parrot).await;
    let directory = tempfile::tempdir().unwrap();
    let wav = directory.path().join("heard.wav");
    let wav_text = wav.to_str().unwrap();
    let arguments =
        ["call", "--bot", "parrot", "--body", "{\"a\":1}", "--expect", "echo", "--json"];
    let ran = callbox(&stand_in.url, &[&arguments[..], &["--out", wav_text]].concat()).await;
    let report = ran.expect(0).json();

    let start = json!({"bot": "parrot", "transport": "websocket", "body": {"a": 1}});
    assert_eq!(*stand_in.shared.starts.lock().unwrap(), [start]);
    assert_eq!(stand_in.session(0).state, SessionState::Ended);
    assert_eq!(report["session_id"], stand_in.session(0).id);
    assert_eq!(report["provider"], "fake");
    assert_eq!(report["accelerator"], "kvm");
    assert_eq!(report["start"], "clone");
    assert_eq!(report["outcome"], "completed");
    assert_eq!(report["end_reason"]["code"], "client-left");
    assert_eq!(report["stages_ms"]["ready"], 240.0);
    assert_eq!(report["stages_ms"]["audible"], 300.0);
    assert_eq!(report["start_stages"][0]["name"], "restore");
    assert_eq!(report["heard_wav"], wav_text);
    let audio = &report["audio"];
    assert_eq!(audio["greeting"], true);
    assert!(audio["echo_similarity"].as_f64().unwrap() > 0.9, "{audio}");
    assert_eq!(audio["sent_bytes"], *stand_in.shared.got.lock().unwrap());
    let client = &report["client_ms"];
    let at = |name: &str| client[name].as_f64().unwrap();
    assert!(at("request_ms") <= at("connected_ms"), "{client}");
    assert!(at("connected_ms") <= at("first_audio_ms"), "{client}");
    assert!(at("first_audio_ms") <= at("first_sound_ms"), "{client}");
    assert!(at("answer_ms") > 0.0, "{client}");
    let heard = hound::WavReader::open(&wav).unwrap();
    assert!(heard.duration() > 16_000 * 2, "{}", heard.duration());
}

#[tokio::test]
async fn people_get_a_picture_and_progress_on_the_other_stream() {
    let stand_in = StandIn::new(Mood::Parrot).await;
    let word = short_word();
    let ran = callbox(&stand_in.url, &["call", "--say", word.to_str().unwrap()]).await.expect(0);
    for text in ["parrot · fake · kvm · clone", "audible", "●", "you hear", "an echo"] {
        assert!(ran.stdout.contains(text), "no {text:?} in {ran:?}");
    }
    assert!(!ran.stdout.contains('\x1b'), "no colours into a pipe: {ran:?}");
    ran.says(&["asking for a session", "ready +240 ms", "audible +300 ms"]);

    let ran = callbox(&stand_in.url, &["call", "--quiet", "--say", word.to_str().unwrap()]).await;
    assert_eq!(ran.expect(0).stderr, "");
}

#[tokio::test]
async fn silence_has_its_own_exit_code() {
    let stand_in = StandIn::new(Mood::Mute).await;
    let ran = callbox(&stand_in.url, &["call", "--seconds", "1", "--json"]).await.expect(3);
    ran.says(&["no audio came back", "not a single frame", "callbox logs"]);
    let report = ran.json();
    assert_eq!(report["audio"]["greeting"], false);
    assert_eq!(report["audio"]["received_bytes"], 0);
    assert_eq!(stand_in.session(0).state, SessionState::Ended);
}

#[tokio::test]
async fn an_answer_is_not_always_an_echo() {
    let stand_in = StandIn::new(Mood::Talker).await;
    let word = short_word();
    let say = ["call", "--say", word.to_str().unwrap()];
    callbox(&stand_in.url, &say).await.expect(0);
    let ran = callbox(&stand_in.url, &[&say[..], &["--expect", "echo"]].concat()).await.expect(3);
    ran.says(&["what came back is not what was said"]);
}

#[tokio::test]
async fn a_failed_session_is_explained() {
    for (mood, code, detail) in [
        (Mood::StartFails, "machine-lost", "it went away"),
        (Mood::DiesInCall, "bot-failed", "exit status 1"),
    ] {
        let stand_in = StandIn::new(mood).await;
        let ran = callbox(&stand_in.url, &["call"]).await.expect(4);
        ran.says(&[code, detail, "hint:", "callbox logs"]);
        assert!(ran.stdout.contains("failed"), "{ran:?}");
    }
}

#[tokio::test]
async fn patience_ends_and_leaves_nothing_behind() {
    let stand_in = StandIn::new(Mood::Stuck).await;
    let ran = callbox(&stand_in.url, &["call", "--timeout", "1"]).await.expect(1);
    ran.says(&["nobody was there to talk to after 1 s"]);
    assert_eq!(stand_in.session(0).state, SessionState::Ended);
}

#[tokio::test]
async fn ctrl_c_hangs_up() {
    let stand_in = StandIn::new(Mood::Stuck).await;
    let call = begin(&stand_in.url, &["call"], &[]);
    stand_in.shared.lines.subscribe().wait_for(|lines| *lines == 1).await.unwrap();
    interrupt(&call);
    finish(call).await.expect(130).says(&["interrupted"]);
    assert_eq!(stand_in.session(0).state, SessionState::Ended);
}

#[tokio::test]
async fn a_line_that_cannot_be_opened_ends_the_session_and_shows_no_token() {
    let stand_in = StandIn::new(Mood::NoLine).await;
    let ran = callbox(&stand_in.url, &["call"]).await.expect(1);
    ran.says(&["cannot open the media websocket", "404"]);
    assert!(!ran.stderr.contains("5ec2e7"), "{ran:?}");
    assert_eq!(stand_in.session(0).state, SessionState::Ended);
}

#[tokio::test]
async fn keys_come_from_environment_or_file_and_are_never_shown() {
    let stand_in = StandIn::with_key(Mood::Parrot, Some("cbk_pub_1_geheim")).await;
    let word = short_word();
    let call = ["call", "--say", word.to_str().unwrap(), "--json"];
    callbox(&stand_in.url, &call).await.expect(1).says(&["a key is needed", "CALLBOX_KEY"]);
    let wrong = callbox_with(&stand_in.url, &call, &[("CALLBOX_KEY", "cbk_falsch")]).await;
    let wrong = wrong.expect(1);
    wrong.says(&["not known"]);
    assert!(!wrong.stderr.contains("cbk_falsch"));

    let variable = [("CALLBOX_KEY", "cbk_pub_1_geheim")];
    let ran = callbox_with(&stand_in.url, &call, &variable).await.expect(0);
    assert!(!(ran.stdout + &ran.stderr).contains("geheim"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "cbk_pub_1_geheim\n").unwrap();
    let path = file.path().to_str().unwrap();
    callbox(&stand_in.url, &[&call[..], &["--key-file", path]].concat()).await.expect(0);
    let help = callbox_with(&stand_in.url, &["call", "--help"], &variable).await.expect(0);
    assert!(!help.stdout.contains("geheim"));
}

#[tokio::test]
async fn answers_that_make_no_sense_are_errors_with_a_hint() {
    for (mood, text) in [
        (Mood::Says(200, "text/html", "<html>hello</html>"), "<html>"),
        (Mood::Says(200, "application/json", "{\"wsUrl\":\"ws://x"), "wsUrl"),
        (Mood::Says(200, "application/json", "{}"), "missing field"),
        (Mood::Says(200, "application/json", "{\"wsUrl\":\"ws://x\",\"token\":\"\"}"), "without"),
        (Mood::Says(502, "text/html", "<html>bad gateway</html>"), "502"),
        (Mood::Says(204, "text/plain", ""), "an empty body"),
    ] {
        let stand_in = StandIn::new(mood.clone()).await;
        let ran = callbox(&stand_in.url, &["call"]).await.expect(1);
        ran.says(&["not a dispatcher's", text, "hint:"]);
        assert_eq!(ran.stdout, "", "{mood:?}");
    }
}

#[tokio::test]
async fn refusals_are_told_in_the_dispatchers_words() {
    let body = r#"{"error":"all machines are taken","code":"429","info":"","detail":"","hint":"raise max_sessions"}"#;
    let stand_in = StandIn::new(Mood::Says(429, "application/json", body)).await;
    let ran = callbox(&stand_in.url, &["call"]).await.expect(1);
    ran.says(&["all machines are taken (429 Too Many Requests)", "raise max_sessions"]);
}

#[tokio::test]
async fn nobody_there_is_told_with_a_hint() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let ran = callbox(&url, &["call"]).await.expect(1);
    ran.says(&["no dispatcher answers at http://127.0.0.1", "is `callbox serve` running?"]);
}

#[tokio::test]
async fn a_command_line_that_cannot_be_used_is_told_before_anything_is_asked() {
    let url = "http://127.0.0.1:9";
    callbox("127.0.0.1:9", &["call"]).await.expect(2).says(&["127.0.0.1:9", "hint:"]);
    callbox(url, &["call", "--say", "no-such.wav"]).await.expect(2).says(&["no-such.wav"]);
    callbox(url, &["call", "--seconds", "0"]).await.expect(2);
    callbox(url, &["call", "--body", "{"]).await.expect(2);
    let no_voice = callbox_with(url, &["call", "--say", "hello"], &[("PATH", "/nowhere")]).await;
    no_voice.expect(2).says(&["espeak-ng is not installed", "install"]);
    callbox(url, &["ps", "--key-file", "/nowhere"]).await.expect(1).says(&["/nowhere"]);
}
