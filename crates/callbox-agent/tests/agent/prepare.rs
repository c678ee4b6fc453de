use std::net::TcpListener;

use callbox_protocol::agent::{CommandReady, Phase};

use crate::bots::http_bot;
use crate::house::{House, command, http, log_line, soon, until};

#[tokio::test]
async fn an_http_bot_is_started_and_awaited() {
    let house = House::new();
    let link = house.link().await;
    assert_eq!(link.health().await.unwrap().phase, Phase::Booted);
    let asked = http_bot(&house, "");
    soon(link.prepare(&asked)).await.unwrap();
    assert_eq!(link.health().await.unwrap().phase, Phase::Prepared);
    let error = soon(link.prepare(&asked)).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("wrong-phase"));
}

#[tokio::test]
async fn a_missing_program_is_named_and_can_be_put_right() {
    let house = House::new();
    let link = house.link().await;
    for asked in [
        http(&["/no/such/bot"], 9),
        http(&["no-such-bot"], 9),
        http(&[], 9),
        command(&["no-such-bot", "{room_url}"], CommandReady::Started),
    ] {
        let error = soon(link.prepare(&asked)).await.unwrap_err();
        let code = error.agent_code().unwrap();
        assert!(matches!(code, "bot-not-found" | "bad-request"), "{error}");
        let name = asked.argv.first().map_or("empty", String::as_str);
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut nowhere = http(&["sh"], 9);
    nowhere.cwd = "/no/such/place".to_owned();
    let error = soon(link.prepare(&nowhere)).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/place"), "{error}");
    soon(link.prepare(&http_bot(&house, ""))).await.unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_executed_is_no_program() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::new();
    let link = house.link().await;
    let path = house.path("bot");
    std::fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let asked = http(&[path.to_str().unwrap()], 9);
    let error = soon(link.prepare(&asked)).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("bot-not-found"), "{error}");
}

#[tokio::test]
async fn a_bot_that_exits_at_once_is_reported_with_its_last_words() {
    let house = House::new();
    let link = house.link().await;
    let asked = http(&["sh", "-c", "echo out; echo no module named parrot >&2; exit 3"], 9);
    let error = soon(link.prepare(&asked)).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("bot-exited"));
    assert!(error.to_string().contains("code 3"), "{error}");
    assert!(error.log_tail().contains(&"no module named parrot".to_owned()));
    assert_eq!(link.health().await.unwrap().phase, Phase::Over);
    let error = soon(link.wake(&callbox_link::fresh_wake("x"))).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("bot-exited"));
}

#[tokio::test]
async fn a_bot_that_is_never_ready_is_ended_after_its_time() {
    let house = House::new();
    let link = house.link().await;
    let mut asked = http_bot(&house, "unready");
    asked.ready_timeout_ms = 1500;
    let error = soon(link.prepare(&asked)).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("not-ready"));
    assert!(error.to_string().contains("1500 ms"), "{error}");
    assert!(error.to_string().contains("503"), "{error}");
    assert!(error.log_tail().contains(&"the bot listens".to_owned()));
    assert_eq!(link.health().await.unwrap().phase, Phase::Over);
}

#[tokio::test]
async fn freeze_names_what_listens_and_then_hangs_up() {
    let house = House::new();
    let link = house.link().await;
    let asked = http_bot(&house, "");
    soon(link.prepare(&asked)).await.unwrap();
    let _logs = link.logs(0);
    let frozen = soon(link.freeze()).await.unwrap();
    assert_eq!(frozen.listening, [format!("127.0.0.1:{}", asked.port)]);
    soon(link.closed()).await;
    assert_eq!(house.link().await.health().await.unwrap().phase, Phase::Frozen);
}

#[tokio::test]
async fn freeze_refuses_an_open_connection_and_names_it() {
    let house = House::new();
    let link = house.link().await;
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = peer.local_addr().unwrap().port();
    soon(link.prepare(&http_bot(&house, &format!("holds-connection:{port}")))).await.unwrap();
    let error = soon(link.freeze()).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("established-connections"));
    assert!(error.to_string().contains(&format!("-> 127.0.0.1:{port}")), "{error}");
    assert_eq!(link.health().await.unwrap().phase, Phase::Prepared);
}

#[tokio::test]
async fn prepare_goes_on_when_the_host_goes_away() {
    let house = House::new();
    let link = house.link().await;
    let asked = http_bot(&house, "ready-when-told");
    tokio::select! {
        prepared = link.prepare(&asked) => panic!("{prepared:?} before the bot was told"),
        _ = log_line(&link, "the bot listens") => {}
    }
    drop(link);
    std::fs::write(house.path("ready"), "").unwrap();
    let link = house.link().await;
    until(async || (link.health().await.unwrap().phase == Phase::Prepared).then_some(())).await;
}
