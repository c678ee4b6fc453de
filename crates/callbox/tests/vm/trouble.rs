//! Bots that misbehave: each session ends with the right code, the bot's words are kept, nothing
//! of the machine is left, and the dispatcher does not care.

use crate::support::{Dispatcher, Home, PATIENCE, Said, Wire, assert_is_echo, until};

/// All start cold: a template is worth its time only for what is started more than once.
const BOTS: &str = r#"
[limits]
max_log_bytes = 400000

[bot_defaults]
image = "tiny"
start = "cold"
contract = "command"
ready = "started"
memory_mib = 256
disk_mib = 16

[bots.missing]
argv = ["/app/no-such-program"]

[bots.exits]
argv = ["python3", "/app/trouble/exits.py"]

[bots.exits-while-preparing]
contract = "http"
argv = ["python3", "/app/trouble/exits.py"]

[bots.never-ready]
contract = "http"
env = { TINY_FAULTS = "readyz" }
argv = ["python3", "/app/http_bot.py"]
# Long enough to say that it listens.
timeouts = { ready_s = 20 }

[bots.never-listens]
ready = "listening"
argv = ["sleep", "600"]
timeouts = { ready_s = 2 }

[bots.garbage]
ready = "listening"
argv = ["sh", "-c", "python3 /app/trouble/garbage.py; exec python3 /app/command/bot.py --room-url {room_url}"]

[bots.fills-disk]
argv = ["python3", "/app/trouble/fills_disk.py"]

[bots.eats-memory]
argv = ["python3", "/app/trouble/eats_memory.py"]

[bots.stubborn]
argv = ["/app/stubborn.sh"]
stop_grace_s = 0.5

[bots.floods-its-log]
argv = ["yes", "I have nothing to say and I am saying it"]

[bots.leaves-a-flood-behind]
argv = ["sh", "-c", "yes after me the flood & exit 3"]

[bots.drops-its-line]
contract = "http"
env = { TINY_FAULTS = "drop" }
argv = ["python3", "/app/http_bot.py"]

[bots.refuses-to-wake]
contract = "http"
env = { TINY_FAULTS = "wake-refused" }
argv = ["python3", "/app/http_bot.py"]

[bots.answers-200-to-everything]
contract = "http"
env = { TINY_FAULTS = "wake-garbage" }
argv = ["python3", "/app/http_bot.py"]

[bots.wakes-for-another]
contract = "http"
env = { TINY_FAULTS = "wake-other" }
argv = ["python3", "/app/http_bot.py"]

# The hook of these is refused, so only the command can have had it reseed.
[bots.reseed-command-fails]
contract = "http"
env = { TINY_FAULTS = "wake-refused" }
argv = ["python3", "/app/http_bot.py"]
reseed = "command"
reseed_argv = ["sh", "-c", "echo there is no such socket >&2; exit 5"]

[bots.reseeded-by-command]
contract = "http"
env = { TINY_FAULTS = "wake-refused" }
argv = ["python3", "/app/http_bot.py"]
reseed = "command"
reseed_argv = ["sh", "-c", "read -r entropy; echo $(id -u) got ${#entropy} digits for $CALLBOX_GENERATION_ID"]
"#;

/// A bot that ends its session without a client: the code, what the reason says, what the log has.
struct Case {
    bot: &'static str,
    codes: &'static [&'static str],
    detail: &'static str,
    log: &'static str,
}

const CASES: &[Case] = &[
    Case {
        bot: "missing",
        codes: &["bot-not-ready"],
        detail: "/app/no-such-program",
        log: "dispatcher: ended",
    },
    Case {
        bot: "exits",
        codes: &["bot-failed"],
        detail: "code 7",
        log: "bot: trouble: exiting at once",
    },
    Case {
        bot: "exits-while-preparing",
        codes: &["bot-not-ready"],
        detail: "ended before it was ready",
        log: "bot: trouble: exiting at once",
    },
    Case {
        bot: "never-ready",
        codes: &["bot-not-ready"],
        detail: "GET /readyz answers 503",
        log: "bot: tiny: listening",
    },
    // Agent and dispatcher have the same deadline; either may be first.
    Case {
        bot: "never-listens",
        codes: &["bot-not-ready", "ready-timeout"],
        detail: "ready",
        log: "dispatcher: ended",
    },
    Case {
        bot: "fills-disk",
        codes: &["bot-finished"],
        detail: "finished",
        log: "bot: trouble: No space left on device after ",
    },
    Case {
        bot: "eats-memory",
        codes: &["bot-out-of-memory"],
        detail: "memory was used up",
        log: "bot: trouble: took 8 MiB",
    },
    Case {
        bot: "leaves-a-flood-behind",
        codes: &["bot-failed"],
        detail: "code 3",
        log: "bot: after me the flood",
    },
    Case {
        bot: "refuses-to-wake",
        codes: &["bot-not-ready"],
        detail: "the bot did not reseed",
        log: "dispatcher: ended",
    },
    Case {
        bot: "answers-200-to-everything",
        codes: &["bot-not-ready"],
        detail: "without the generation_id",
        log: "dispatcher: ended",
    },
    Case {
        bot: "wakes-for-another",
        codes: &["bot-not-ready"],
        detail: "for another generation_id",
        log: "dispatcher: ended",
    },
    Case {
        bot: "reseed-command-fails",
        codes: &["bot-not-ready"],
        detail: "code 5; it said: there is no such socket",
        log: "dispatcher: ended",
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn each_trouble_has_its_code_and_its_words() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    // Two machines at a time: as many as there are processors on the smallest host.
    for cases in CASES.chunks(2) {
        let started =
            futures::future::join_all(cases.iter().map(|case| dispatcher.start(case.bot)));
        for (case, session) in cases.iter().zip(started.await) {
            let (code, detail) = dispatcher.end_of(&session.id).await;
            assert!(case.codes.contains(&code.as_str()), "{}: {code}: {detail}", case.bot);
            assert!(detail.contains(case.detail), "{}: {detail}", case.bot);
            let log = dispatcher.log_of(&session.id).await;
            let told = log.iter().any(|line| line.contains(case.log));
            assert!(told, "{}: no {:?} in {log:#?}", case.bot, case.log);
        }
        assert_eq!(home.machines(), 0);
        dispatcher.assert_alive().await;
    }
    a_failed_call_says_what_to_do(&dispatcher).await;
    dispatcher.stop().await;
}

async fn a_failed_call_says_what_to_do(dispatcher: &Dispatcher<'_>) {
    let ran = dispatcher.run(&["call", "--bot", "missing", "--json"]).await.expect(4);
    ran.explains(&["bot-not-ready", "/app/no-such-program", "callbox logs"]);
    let report = ran.json();
    assert_eq!(report["outcome"], "failed");
    assert_eq!(report["end_reason"]["code"], "bot-not-ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn bots_that_are_strange_in_a_call() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    tokio::join!(
        one_that_prints_garbage_still_takes_calls(&dispatcher),
        one_that_breaks_its_line_ends_the_call(&dispatcher),
        one_that_is_reseeded_by_a_command_takes_calls(&dispatcher),
    );
    tokio::join!(
        one_that_does_not_listen_is_ended_all_the_same(&dispatcher),
        one_that_never_stops_talking_fills_no_disk(&dispatcher),
    );
    assert_eq!(home.machines(), 0);
    dispatcher.stop().await;
}

async fn one_that_prints_garbage_still_takes_calls(dispatcher: &Dispatcher<'_>) {
    let said = Said::in_dir(dispatcher.home.path());
    let heard = dispatcher.home.path().join("heard.wav");
    let say = said.wav.to_str().unwrap();
    let out = heard.to_str().unwrap();
    let arguments = ["call", "--bot", "garbage", "--say", say, "--out", out, "--json"];
    let report = dispatcher.run(&arguments).await.expect(0).json();
    assert_is_echo(&said, &heard);
    let id = report["session_id"].as_str().unwrap();
    let log = dispatcher.log_of(id).await;
    assert!(log.iter().any(|line| line.contains("no newline")), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("listening")), "{log:#?}");
    // For people: nothing that steers a terminal, however the bot tries.
    let text = dispatcher.run(&["logs", id]).await.expect(0).stdout;
    assert!(text.chars().all(|c| matches!(c, '\n' | '\t') || !c.is_control()), "{text:?}");
}

async fn one_that_breaks_its_line_ends_the_call(dispatcher: &Dispatcher<'_>) {
    let session = dispatcher.start("drops-its-line").await;
    let mut wire = Wire::join(&session).await;
    wire.send("hello").await.unwrap();
    assert_eq!(wire.closed().await, Some((1011, "bot-failed".to_owned())));
    let (code, detail) = dispatcher.end_of(&session.id).await;
    assert_eq!(code, "bot-failed", "{detail}");
}

async fn one_that_is_reseeded_by_a_command_takes_calls(dispatcher: &Dispatcher<'_>) {
    let session = dispatcher.start("reseeded-by-command").await;
    let mut wire = Wire::join(&session).await;
    wire.send("hello").await.unwrap();
    assert_eq!(wire.next().await.to_text().unwrap(), "hello");
    wire.hang_up().await;
    dispatcher.end_of(&session.id).await;
    let log = dispatcher.log_of(&session.id).await;
    let said = "agent: reseed command: 1000 got 64 digits for ";
    assert!(log.iter().any(|line| line.starts_with(said)), "{log:#?}");
}

async fn one_that_does_not_listen_is_ended_all_the_same(dispatcher: &Dispatcher<'_>) {
    let session = dispatcher.start("stubborn").await;
    dispatcher.when("ready", &session.id).await;
    let stop = ["stop", &session.id[..8], "--wait", "60", "--json"];
    let stopped = dispatcher.run(&stop).await.expect(0).json();
    assert_eq!(stopped["end_reason"]["code"], "stopped", "{stopped:#}");
    assert_eq!(stopped["outcome"], "completed", "{stopped:#}");
}

async fn one_that_never_stops_talking_fills_no_disk(dispatcher: &Dispatcher<'_>) {
    let session = dispatcher.start("floods-its-log").await;
    let file = dispatcher.home.data().join(format!("logs/{}.ndjson", session.id));
    let size = || std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
    until("its log is full", PATIENCE, || size() >= 400_000).await;
    dispatcher.assert_alive().await;
    let stopped = dispatcher.run(&["stop", &session.id, "--wait", "60", "--json"]).await.expect(0);
    assert_eq!(stopped.json()["end_reason"]["code"], "stopped");
    assert!(size() < 500_000, "{}", size());
    // Nor the dispatcher's own log.
    let own = dispatcher.home.log();
    let lines = |log: &str| log.lines().filter(|line| line.contains("I am saying it")).count();
    let kept = lines(&std::fs::read_to_string(&file).unwrap());
    assert!(lines(&own) <= kept + 1, "{} lines of {kept}", lines(&own));
    assert!(own.contains("ended: ended through the API (stopped)"), "its end is told");
}
