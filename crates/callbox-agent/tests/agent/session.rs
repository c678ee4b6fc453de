use std::time::Duration;

use callbox_protocol::agent::{AgentEventKind, CommandReady, LogStream, Phase, SessionData};
use futures::StreamExt;

use crate::bots::{free_port, http_bot};
use crate::house::{House, command, log_line, next, no_body, session, soon, until};

fn exited(code: i32) -> AgentEventKind {
    AgentEventKind::BotExited { code: Some(code), signal: None, out_of_memory: false }
}

#[tokio::test]
async fn a_command_gets_its_session_in_words_and_environment() {
    let house = House::new();
    let script = "echo args: \"$@\"; echo env: $CALLBOX_SESSION_ID $CALLBOX_ROOM_URL \
                  $CALLBOX_INCARNATION $CALLBOX_TOKEN $API_KEY $FROM_PREPARE; echo body: $CALLBOX_BODY; exit 7";
    let words = [
        "sh",
        "-c",
        script,
        "sh",
        "{room_url}",
        "--id={session_id}/{incarnation}/{bot}",
        "{body}",
        "{}",
    ];
    let link = house.awake(&command(&words, CommandReady::Started)).await;
    let mut events = link.events(0);
    soon(link.session(&session())).await.unwrap();
    assert_eq!(next(&mut events).await, AgentEventKind::Ready);
    assert_eq!(next(&mut events).await, exited(7));
    let args = log_line(&link, "args:").await;
    assert_eq!(args, "args: ws://127.0.0.1/ws --id=s-1/1/demo {\"a\":[1,\"ä\"]} {}");
    assert_eq!(log_line(&link, "env:").await, "env: s-1 ws://127.0.0.1/ws 1 t0ken s3cret yes");
    assert_eq!(log_line(&link, "body:").await, "body: {\"a\":[1,\"ä\"]}");
    assert_eq!(link.health().await.unwrap().phase, Phase::Over);
    // Asked again over a new connection, and all events are still there.
    soon(link.session(&session())).await.unwrap();
    assert_eq!(next(&mut house.link().await.events(1)).await, exited(7));
    let env = std::fs::read_to_string(house.path("agent.run/env.json")).unwrap();
    assert_eq!(env, "{\"API_KEY\":\"s3cret\"}");
}

#[tokio::test]
async fn a_command_is_ready_when_it_listens() {
    let house = House::new();
    let port = free_port();
    let bot = http_bot(&house, "");
    let words: Vec<_> = bot.argv.iter().map(String::as_str).collect();
    let mut asked = command(&words, CommandReady::Listening);
    asked.env = bot.env.clone();
    asked.env.insert("TEST_BOT_PORT".to_owned(), port.to_string());
    asked.port = port;
    let link = house.awake(&asked).await;
    soon(link.session(&session())).await.unwrap();
    assert_eq!(next(&mut link.events(0)).await, AgentEventKind::Ready);
}

#[tokio::test]
async fn a_command_that_ends_or_hesitates_is_not_ready() {
    for (script, detail) in [("exit 4", "code 4"), ("exec sleep 60", "300 ms")] {
        let house = House::new();
        let mut asked = command(&["sh", "-c", script], CommandReady::Listening);
        asked.port = free_port();
        asked.ready_timeout_ms = 300;
        let link = house.awake(&asked).await;
        soon(link.session(&session())).await.unwrap();
        let event = next(&mut link.events(0)).await;
        let AgentEventKind::NotReady { detail: told } = event else {
            panic!("not ready was expected, not {event:?}");
        };
        assert!(told.contains(detail), "{told}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_not_ready() {
    let house = House::new();
    let link = house.awake(&command(&["{bot}"], CommandReady::Started)).await;
    let mut data = session();
    data.bot = "no-such-bot".to_owned();
    soon(link.session(&data)).await.unwrap();
    let event = next(&mut link.events(0)).await;
    let AgentEventKind::NotReady { detail } = event else {
        panic!("not ready was expected, not {event:?}");
    };
    assert!(detail.contains("no-such-bot"), "{detail}");
}

#[tokio::test]
async fn an_unknown_placeholder_is_found_before_there_is_a_session() {
    let house = House::new();
    let link = house.link().await;
    let asked = command(&["sh", "{rum_url}"], CommandReady::Started);
    let error = soon(link.prepare(&asked)).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("bad-request"));
    assert!(error.to_string().contains("{rum_url}"), "{error}");
}

#[tokio::test]
async fn an_http_bot_is_ready_at_once_and_enters_no_room_over_a_websocket() {
    let house = House::new();
    let link = house.awake(&http_bot(&house, "")).await;
    soon(link.session(&session())).await.unwrap();
    assert_eq!(next(&mut link.events(0)).await, AgentEventKind::Ready);
    assert!(!house.path("asked-bot").exists());
    assert_eq!(link.health().await.unwrap().phase, Phase::InSession);
}

#[tokio::test]
async fn an_http_bot_is_told_its_room_and_its_answer_is_the_end() {
    let house = House::new();
    let link = house.awake(&http_bot(&house, "")).await;
    let mut data = session();
    data.transport = "daily".to_owned();
    data.room_url = "https://x.daily.co/room".to_owned();
    data.body = no_body();
    soon(link.session(&data)).await.unwrap();
    let mut events = link.events(0);
    assert_eq!(next(&mut events).await, AgentEventKind::Ready);
    assert_eq!(next(&mut events).await, exited(0));
    let asked = std::fs::read_to_string(house.path("asked-bot")).unwrap();
    for part in [
        "POST /bot ",
        "x-daily-session-id: s-1\r\n",
        "x-daily-room-url: https://x.daily.co/room\r\n",
        "x-daily-room-token: t0ken\r\n",
        "\r\n\r\n{}",
    ] {
        assert!(asked.contains(part), "{part:?} is missing in {asked}");
    }
}

#[tokio::test]
async fn garbage_on_the_output_harms_nobody() {
    let house = House::new();
    let script = "head -c 3000000 /dev/urandom; head -c 100000 /dev/zero; echo; echo; echo end";
    let link = house.awake(&command(&["sh", "-c", script], CommandReady::Started)).await;
    soon(link.session(&session())).await.unwrap();
    let mut logs = link.logs(0);
    let mut last = 0;
    loop {
        let line = soon(logs.next()).await.unwrap().unwrap();
        assert!(line.seq > last && line.text.len() <= 8192);
        last = line.seq;
        if line.stream == LogStream::Stdout && line.text == "end" {
            break;
        }
        // The agent answers all the while.
        if last.is_multiple_of(500) {
            soon(link.health()).await.unwrap();
        }
    }
    assert_eq!(next(&mut link.events(1)).await, exited(0));
}

#[tokio::test]
async fn stop_ends_the_bot_with_all_that_it_started() {
    let mut house = House::new();
    let script = "sleep 1000 & echo $! > $0; wait";
    let file = house.path("child");
    let words = ["sh", "-c", script, file.to_str().unwrap()];
    let link = house.awake(&command(&words, CommandReady::Started)).await;
    soon(link.session(&session())).await.unwrap();
    let child = until(async || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.trim().parse::<i32>().ok()
    })
    .await;
    let mut events = link.events(1);
    soon(link.stop(Duration::from_secs(20))).await.unwrap();
    let ended = next(&mut events).await;
    assert!(matches!(ended, AgentEventKind::BotExited { signal: Some(15), .. }), "{ended:?}");
    soon(house.ended()).await;
    soon(link.closed()).await;
    gone(child).await;
}

#[tokio::test]
async fn stop_ends_a_bot_that_does_not_listen() {
    let mut house = House::new();
    let words = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"];
    let link = house.awake(&command(&words, CommandReady::Started)).await;
    soon(link.session(&session())).await.unwrap();
    log_line(&link, "deaf").await;
    let mut events = link.events(1);
    soon(link.stop(Duration::from_millis(200))).await.unwrap();
    let ended = next(&mut events).await;
    assert!(matches!(ended, AgentEventKind::BotExited { signal: Some(9), .. }), "{ended:?}");
    soon(house.ended()).await;
}

/// Waits until there is no such process, or only what is left of it for its parent.
async fn gone(pid: i32) {
    until(async || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().unwrap_or_default().to_owned();
        (state.is_empty() || state.starts_with('Z')).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_machine_ends_itself_when_no_session_can_last_so_long() {
    let house = House::new();
    let link = house.awake(&command(&["sleep", "60"], CommandReady::Started)).await;
    let mut events = link.events(0);
    let asked = SessionData { longest_life_ms: Some(300), ..session() };
    soon(link.session(&asked)).await.unwrap();
    assert_eq!(next(&mut events).await, AgentEventKind::Ready);
    let ended = next(&mut events).await;
    assert!(matches!(ended, AgentEventKind::BotExited { signal: Some(15), .. }), "{ended:?}");
    soon(link.closed()).await;
}
