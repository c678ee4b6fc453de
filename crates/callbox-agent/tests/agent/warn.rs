use callbox_protocol::agent::{CommandReady, Contract, Warning, WarningSignal};

use crate::bots::http_bot;
use crate::house::{House, command, log_line, session, soon};

fn warning() -> Warning {
    Warning { ends_in_ms: 60_000, reason: "live-timeout".to_owned() }
}

#[tokio::test]
async fn an_http_bot_is_told_and_may_be_deaf() {
    for (manners, told) in [("", "the bot was told"), ("deaf", "the bot hears no warnings")] {
        let house = House::new();
        let link = house.awake(&http_bot(&house, manners)).await;
        soon(link.session(&session())).await.unwrap();
        soon(link.warn(&warning())).await.unwrap();
        let line = log_line(&link, "the session ends in 60.0 s (live-timeout)").await;
        assert!(line.contains(told), "{line}");
        let asked = std::fs::read_to_string(house.path("asked-_callbox-warning")).unwrap();
        assert!(asked.starts_with("POST /_callbox/warning "), "{asked}");
        assert!(asked.ends_with(r#"{"ends_in_ms":60000,"reason":"live-timeout"}"#), "{asked}");
    }
}

#[tokio::test]
async fn a_command_finds_a_file_and_gets_the_signal_that_it_asked_for() {
    let house = House::new();
    // Without its trap, the signal would end it.
    let script = "trap 'echo warned: $(cat \"$0\")' USR1; echo set; while :; do sleep 0.1; done";
    let file = house.path("agent.run/warning.json");
    let mut asked = command(&["sh", "-c", script, file.to_str().unwrap()], CommandReady::Started);
    asked.contract = Contract::Command {
        ready: CommandReady::Started,
        warning_signal: Some(WarningSignal::Usr1),
    };
    let link = house.awake(&asked).await;
    soon(link.session(&session())).await.unwrap();
    log_line(&link, "set").await;
    soon(link.warn(&warning())).await.unwrap();
    let line = log_line(&link, "warned:").await;
    let text: serde_json::Value =
        serde_json::from_str(line.strip_prefix("warned: ").unwrap()).unwrap();
    assert_eq!((&text["ends_in_ms"], &text["reason"]), (&60_000.into(), &"live-timeout".into()));
    assert!(text["ends_at_ms"].as_u64().unwrap() > 1_700_000_000_000, "{text}");
    // The next one takes its place.
    soon(link.warn(&Warning { ends_in_ms: 1, ..warning() })).await.unwrap();
    assert!(std::fs::read_to_string(&file).unwrap().contains(r#""ends_in_ms":1,"#));
}

#[tokio::test]
async fn a_command_that_asked_for_no_signal_gets_none() {
    let house = House::new();
    let link = house.awake(&command(&["sleep", "60"], CommandReady::Started)).await;
    soon(link.session(&session())).await.unwrap();
    soon(link.warn(&warning())).await.unwrap();
    log_line(&link, "it is written in").await;
    let phase = link.health().await.unwrap().phase;
    assert_eq!(phase, callbox_protocol::agent::Phase::InSession);
}

#[tokio::test]
async fn there_is_nothing_to_warn_of_without_a_session() {
    let house = House::new();
    let link = house.awake(&command(&["true"], CommandReady::Started)).await;
    let error = soon(link.warn(&warning())).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("wrong-phase"), "{error}");
    soon(link.session(&session())).await.unwrap();
    log_line(&link, "the bot ended").await;
    let error = soon(link.warn(&warning())).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("bot-exited"), "{error}");
}
