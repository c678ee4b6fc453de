//! The whole way of a session at Fly, client to audio, on this host: `provider = "fly"`, the
//! stand-in for Fly's API, a real machine behind it, and in that the agent that dials.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::Child,
    time::timeout,
};

use crate::support::{Dispatcher, Home, PATIENCE, Ran, SOON, Said, Setting, assert_is_echo};

const BOTS: &str = r#"
[fly]
apps = ["bots"]
[bots.parrot]
provider = "fly"
image = "registry.fly.io/bots/fly-parrot:v1"
memory_mib = 1024
"#;

/// `callbox machines serve`, in a home of its own.
struct StandIn<'a> {
    child: Child,
    url: String,
    token: String,
    home: &'a Home,
}

impl<'a> StandIn<'a> {
    /// One whose machines reach this port of this host.
    async fn serving(home: &'a Home, port: u16) -> StandIn<'a> {
        // Its machines' host is a directory of its own; what is slow to make is shared.
        let own = home.data().join("standin");
        std::fs::create_dir(&own).unwrap();
        for shared in ["kernel", "probe"] {
            let to = std::fs::canonicalize(home.data().join(shared)).unwrap();
            std::os::unix::fs::symlink(to, own.join(shared)).unwrap();
        }
        let config = home.configure("");
        let way = port.to_string();
        let fixed = ["machines", "serve", "--json", "--listen", "127.0.0.1:0", "--app", "bots"];
        let more = ["--network", "none", "--reach", &way, "--config", config.to_str().unwrap()];
        let log = std::fs::File::create(home.path().join("standin.log")).unwrap();
        let mut command = home.callbox(&[&fixed[..], &more].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("it serves").unwrap();
        let serving: Value = serde_json::from_str(&line).unwrap();
        let text = |key: &str| serving[key].as_str().unwrap().to_owned();
        StandIn { child, url: text("url"), token: text("token"), home }
    }

    /// What there is, in truth.
    async fn machines(&self) -> Vec<Value> {
        let url = format!("{}/_standin/machines", self.url);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let answer = reqwest::Client::new().get(url).bearer_auth(&self.token).send().await.unwrap();
        let there: Value = answer.json().await.unwrap();
        there.as_array().unwrap_or_else(|| there["machines"].as_array().unwrap()).clone()
    }

    async fn stop(mut self) {
        assert_eq!(self.machines().await, [json!(null); 0], "machines are left");
        let pid = i32::try_from(self.child.id().expect("it runs")).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        let status = timeout(SOON, self.child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(0), "{status}");
        assert_eq!(self.home.machines(), 0);
    }
}

/// Fly as this host has it, a dispatcher with this bot there, and a call to it that hears its echo.
/// Gives what is told of the call.
async fn a_call(bot: &str, from_reserve: bool) -> Value {
    let (ours, theirs) = (Home::new(), Home::new());
    // Known before it serves, as machines are told it.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let there = StandIn::serving(&theirs, port).await;
    let (listen, public) = (format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"));
    let environment = [
        ("CALLBOX_LISTEN", listen.as_str()),
        ("CALLBOX_PUBLIC_URL", &public),
        ("FLY_API_TOKEN", &there.token),
        ("FLY_FLAPS_BASE_URL", &there.url),
    ];
    let setting = Setting { environment: &environment, ..Setting::default() };
    let bots = format!("{BOTS}{bot}");
    // Others than this host can reach it: nothing is served without a key.
    let config = ours.configure(&bots);
    let create = ["keys", "create", "--private", "--json", "--config", config.to_str().unwrap()];
    let key = Ran::of(ours.callbox(&create)).await.expect(0).json();
    let dispatcher = Dispatcher::ready_as(&ours, &bots, &setting).await;
    let dispatcher = dispatcher.with_key(key["key"].as_str().unwrap());
    if from_reserve {
        full(&dispatcher).await;
    }

    let said = Said::in_dir(ours.path());
    let heard = ours.path().join("heard.wav");
    let (say, out) = (said.wav.to_str().unwrap(), heard.to_str().unwrap());
    let fixed = ["call", "--json", "--quiet", "--bot", "parrot", "--expect", "echo"];
    let more = ["--say", say, "--out", out, "--timeout", "280"];
    let report = dispatcher.run(&[&fixed[..], &more].concat()).await.expect(0).json();
    assert_eq!(report["end_reason"]["code"], "client-left", "{report:#}");
    assert_is_echo(&said, &heard);
    let log = dispatcher.log_of(report["session_id"].as_str().unwrap()).await;
    assert!(log.iter().any(|line| line.contains("agent: session ")), "{log:#?}");

    dispatcher.stop().await;
    there.stop().await;
    eprintln!("{} ({bot:?}): {}", report["start"], report["start_stages"]);
    report
}

async fn full(dispatcher: &Dispatcher<'_>) {
    let filled = async {
        while dispatcher.get("/v1/info").await.body["reserves"]["parrot"]["ready"] != json!(1) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, filled).await.expect("the reserve is filled");
}

fn came_up(report: &Value) -> (&str, Vec<&str>) {
    let stages = report["start_stages"].as_array().unwrap().iter();
    let names = stages.map(|stage| stage["name"].as_str().unwrap()).collect();
    (report["start"].as_str().unwrap(), names)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_a_machine_at_fly() {
    let report = a_call("", false).await;
    assert_eq!(report["provider"], "fly");
    assert_eq!(came_up(&report), ("cold", vec!["create", "boot", "prepare", "wake"]));
}

/// The shape of the page on the pattern, as it is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_the_session() {
    let bot = r#"
contract = "command"
argv = ["python3", "bot.py", "--room-url", "{room_url}", "--token", "{token}"]
cwd = "/app/command"
"#;
    assert_eq!(came_up(&a_call(bot, false).await).0, "cold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_a_machine_that_was_stopped() {
    let report = a_call("reserve = { min = 1, max = 1 }\n", true).await;
    assert_eq!(came_up(&report), ("reserve", vec!["start", "boot", "prepare", "wake"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_a_machine_that_was_suspended() {
    let report = a_call("reserve = { min = 1, max = 1, kind = \"suspended\" }\n", true).await;
    assert_eq!(came_up(&report), ("reserve", vec!["resume", "dial", "wake"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_a_machine_that_was_connected() {
    let report = a_call("reserve = { min = 1, max = 1, kind = \"started\" }\n", true).await;
    assert_eq!(came_up(&report), ("reserve", vec!["wake"]));
}
