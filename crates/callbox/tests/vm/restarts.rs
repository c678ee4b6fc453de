//! Calls that go on while the dispatcher dies, is away, and comes back.

use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::support::{Dispatcher, Home, PATIENCE, Setting, Started, Talk, Wire};

const BOTS: &str = r#"
# The bot of the image, without the pause that TCP makes for small writes: it would be in all
# that is measured here.
[bots.tiny]
image = "tiny"
argv = ["python3", "-c", """
import sys
sys.path.insert(0, '/app')
import http_bot as bot
bot.Handler.disable_nagle_algorithm = True
print('tiny: listening on 127.0.0.1:8080', flush=True)
bot.Server(('127.0.0.1', 8080), bot.Handler).serve_forever()
"""]
memory_mib = 256
disk_mib = 64

# Ends by itself, some time after its call began.
[bots.mortal]
image = "tiny"
contract = "command"
argv = ["sh", "-c", "(sleep 15; kill -KILL $$) & exec python3 /app/http_bot.py"]
memory_mib = 256
disk_mib = 64
"#;

/// Audio, at the pace of speech, that no restart interrupts.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_without_its_dispatcher_and_with_the_next_one() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let (session, talk) = talking(&dispatcher, "tiny").await;
    talk.hear(150).await;
    let before = dispatcher.session(&session.id).await;
    assert_eq!(before["state"], "live", "{before}");
    assert!(before["moments"]["audible"].is_string(), "{before}");
    let quiet = talk.measure_anew();

    dispatcher.kill().await;
    talk.hear(150).await;
    let alone = talk.measure_anew();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    talk.hear(150).await;
    let restarted = talk.measure_anew();
    for (when, heard) in [
        ("with a dispatcher", quiet),
        ("over its death and without one", alone),
        ("over the next one's start", restarted),
    ] {
        println!(
            "{when}: longest gap between two frames of audio {} ms, median round trip {:.1} ms",
            heard.longest_gap.as_millis(),
            heard.median_ms(),
        );
    }
    let after = dispatcher.session(&session.id).await;
    assert_eq!((&after["state"], &after["moments"]), (&before["state"], &before["moments"]));
    talk.stop().await.hang_up().await;
    assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    let log = dispatcher.log_of(&session.id).await;
    let in_a_call = log.iter().filter(|line| line.ends_with("tiny: in a call")).count();
    assert_eq!(in_a_call, 1, "what was written before is not written again: {log:#?}");
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_no_dispatcher_runs_is_known_to_the_next_one() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let (left, mut leaving) = joined(&dispatcher, "tiny").await;
    let (died, mut dying) = joined(&dispatcher, "mortal").await;
    // Nothing was ever said in this one: what it has to tell of the bot comes later.
    let (silent, mut quiet) = joined(&dispatcher, "tiny").await;
    for wire in [&mut leaving, &mut dying, &mut quiet] {
        wire.send("hello").await.unwrap();
        wire.next().await;
    }
    dispatcher.kill().await;
    leaving.hang_up().await;
    let closed = dying.closed().await;
    assert_eq!(closed, Some((1011, "bot-failed".to_owned())));
    // As far as the dispatcher looks, this is audio.
    quiet.send(vec![0x12, 0]).await.unwrap();
    quiet.next().await;

    let dispatcher = Dispatcher::serving(&home, BOTS).await;
    assert_eq!(dispatcher.end_of(&left.id).await.0, "client-left");
    let (code, detail) = dispatcher.end_of(&died.id).await;
    assert_eq!(code, "bot-failed", "{detail}");
    assert!(detail.contains("signal 9"), "the machine's own account: {detail}");
    let heard = async {
        while !dispatcher.session(&silent.id).await["moments"]["audible"].is_string() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("the next dispatcher hears of the audio");
    quiet.hang_up().await;
    assert_eq!(dispatcher.end_of(&silent.id).await.0, "client-left");
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_killed_ends_its_call_and_no_other() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let (first, mut wire) = joined(&dispatcher, "tiny").await;
    let relay = home.relays()[0];
    let (second, talk) = talking(&dispatcher, "tiny").await;
    kill_process(relay, Signal::KILL).unwrap();
    assert_eq!(wire.closed().await, None, "nobody is left to say why");
    assert_eq!(dispatcher.end_of(&first.id).await.0, "client-left");
    talk.hear(50).await;

    // And one that dies together with its dispatcher.
    let relay = home.relays()[0];
    dispatcher.kill().await;
    kill_process(relay, Signal::KILL).unwrap();
    drop(talk);
    let dispatcher = Dispatcher::serving(&home, BOTS).await;
    assert_eq!(dispatcher.end_of(&second.id).await.0, "dispatcher-restarted");
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_while_no_dispatcher_runs_ends_its_call_at_once() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let (session, mut wire) = joined(&dispatcher, "tiny").await;
    assert!(wire.answers().await);
    let machine = home.machine_processes()[0];
    dispatcher.kill().await;
    kill_process(machine, Signal::KILL).unwrap();
    assert_eq!(wire.closed().await, Some((1011, "bot-failed".to_owned())));
    let dispatcher = Dispatcher::serving(&home, BOTS).await;
    assert_eq!(dispatcher.end_of(&session.id).await.0, "machine-lost");
    dispatcher.stop().await;
}

/// Between the client's handshake and the relay there is no moment in which a call is neither
/// nor: either it goes on, or its client can come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_dies_while_a_client_comes_in_leaves_no_doubt() {
    let home = Home::new();
    let (mut went_on, mut came_again) = (0, 0);
    let mut dispatcher = Dispatcher::ready(&home, BOTS).await;
    for after in [0, 4, 8, 12, 16, 24, 40, 80] {
        let session = dispatcher.start("tiny").await;
        dispatcher.when("ready", &session.id).await;
        let coming = tokio::spawn({
            let session = session.clone();
            async move { Wire::try_join(&session).await }
        });
        tokio::time::sleep(Duration::from_millis(after)).await;
        dispatcher.kill().await;
        let mut wire = coming.await.unwrap();
        dispatcher = Dispatcher::serving(&home, BOTS).await;
        let goes_on = match &mut wire {
            Some(wire) => wire.answers().await,
            None => false,
        };
        let mut wire = match wire.filter(|_| goes_on) {
            Some(wire) => {
                went_on += 1;
                wire
            }
            None => {
                came_again += 1;
                Wire::join(&dispatcher.taken_over(&session)).await
            }
        };
        assert!(wire.answers().await);
        let is = dispatcher.session(&session.id).await;
        assert_eq!(is["state"], "live", "{is}");
        wire.hang_up().await;
        assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    }
    println!("of 8 clients, {went_on} went on and {came_again} came again");
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_left_to_the_next_dispatcher_or_swept_when_there_will_be_none() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let (_, mut wire) = joined(&dispatcher, "tiny").await;
    dispatcher.kill().await;
    let found = home.sweep(&[]).await.expect(0).json();
    assert_eq!(found["found"], serde_json::json!([]), "the next dispatcher goes on with it");
    assert!(wire.answers().await);
    let (swept, closed) = tokio::join!(home.sweep(&["--all"]), wire.closed());
    let found = swept.expect(0).json();
    let kinds: Vec<_> = found["found"].as_array().unwrap().iter().map(|one| &one["kind"]).collect();
    assert_eq!(kinds, ["call", "machine"], "{found}");
    assert_eq!(closed, Some((1011, "dispatcher-restarted".to_owned())));
    home.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_in_place_cuts_no_call() {
    let home = Home::new();
    home.install();
    let bots = format!("[limits]\non_shutdown = \"leave\"\n{BOTS}");
    let dispatcher = Dispatcher::ready(&home, &bots).await;
    let (old, talk) = talking(&dispatcher, "tiny").await;
    home.install();
    // The file that this dispatcher was started from is gone by now.
    let (new, mut wire) = joined(&dispatcher, "tiny").await;
    assert!(wire.answers().await);
    talk.measure_anew();
    let address = dispatcher.address().to_owned();
    dispatcher.leave().await;
    assert_eq!((home.machines(), home.relays().len()), (2, 2));
    // At the same address, on which calls are still connected.
    let environment = [("CALLBOX_LISTEN", address.as_str())];
    let setting = Setting { environment: &environment, ..Setting::default() };
    let dispatcher = Dispatcher::ready_as(&home, &bots, &setting).await;
    talk.hear(100).await;
    println!("longest gap over an upgrade: {} ms", talk.measure_anew().longest_gap.as_millis());
    assert!(wire.answers().await);
    for session in [&old, &new] {
        let session = dispatcher.session(&session.id).await;
        assert_eq!(session["state"], "live", "{session}");
    }
    wire.hang_up().await;
    talk.stop().await.hang_up().await;
    for session in [&old, &new] {
        assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    }
    dispatcher.stop().await;
}

/// Where no process can be started, the dispatcher carries the call. Also what a relay costs:
/// the same call with one and without, side by side.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_relay_works_as_well_and_ends_with_its_dispatcher() {
    let (home, bare) = (Home::new(), Home::new());
    // Nothing can be put there.
    std::fs::write(bare.data().join("relays"), "").unwrap();
    let bots = format!("[limits]\non_shutdown = \"leave\"\n{BOTS}");
    let with = Dispatcher::ready(&home, &bots).await;
    let without = Dispatcher::ready(&bare, &bots).await;
    println!(
        "from ready to the bot's first answer: {:.1} ms through a relay and {:.1} ms through the \
         dispatcher (medians of 7)",
        first_answer(&with).await,
        first_answer(&without).await,
    );
    let (relayed, talk) = talking(&with, "tiny").await;
    let (carried, wire) = joined(&without, "tiny").await;
    let carried_talk = Talk::on(wire);
    let relay = home.relays()[0];
    let (began, before) = (std::time::Instant::now(), cpu(relay));
    for talk in [&talk, &carried_talk] {
        talk.hear(50).await;
        talk.measure_anew();
    }
    tokio::join!(talk.hear(500), carried_talk.hear(500));
    let used = (cpu(relay) - before).as_secs_f64() / began.elapsed().as_secs_f64();
    println!(
        "median round trip {:.1} ms through a relay and {:.1} ms through the dispatcher; \
         a relay uses {:.1} % of a processor at 50 frames a second each way, and {} of memory",
        talk.measure_anew().median_ms(),
        carried_talk.measure_anew().median_ms(),
        used * 100.0,
        memory(relay),
    );
    assert!(bare.relays().is_empty());
    talk.stop().await.hang_up().await;
    assert_eq!(with.end_of(&relayed.id).await.0, "client-left");
    with.stop().await;

    let mut wire = carried_talk.stop().await;
    let (_, closed) = tokio::join!(without.terminate(), wire.closed());
    assert_eq!(closed, Some((1000, "dispatcher-shutdown".to_owned())), "it cannot be left");
    let without = Dispatcher::serving(&bare, &bots).await;
    let session = without.session(&carried.id).await;
    assert_eq!(session["end_reason"]["code"], "dispatcher-shutdown", "{session}");
    without.stop().await;
}

/// From the moment at which the bot was ready to its answer to what was said before, in
/// milliseconds.
async fn first_answer(dispatcher: &Dispatcher<'_>) -> f64 {
    let mut took = Vec::new();
    for _ in 0..7 {
        let session = dispatcher.start("tiny").await;
        let mut wire = Wire::join(&session).await;
        assert!(wire.answers().await);
        let answered = jiff::Timestamp::now();
        let is = dispatcher.session(&session.id).await;
        let ready: jiff::Timestamp = is["moments"]["ready"].as_str().unwrap().parse().unwrap();
        took.push(answered.duration_since(ready).as_secs_f64() * 1e3);
        wire.hang_up().await;
        assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    }
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

/// Processor time of a process so far.
fn cpu(pid: rustix::process::Pid) -> Duration {
    let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = std::fs::read_to_string(stat).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Resident memory of a process, and how much of it is its own.
fn memory(pid: rustix::process::Pid) -> String {
    let status = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = std::fs::read_to_string(status).unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    format!("{} ({} of its own)", line("VmRSS:"), line("RssAnon:"))
}

/// A call in which the bot has answered: until then the client may be on its way to its relay.
async fn joined(dispatcher: &Dispatcher<'_>, bot: &str) -> (Started, Wire) {
    let session = dispatcher.start(bot).await;
    let mut wire = Wire::join(&session).await;
    dispatcher.when("ready", &session.id).await;
    assert!(wire.answers().await);
    (session, wire)
}

async fn talking(dispatcher: &Dispatcher<'_>, bot: &str) -> (Started, Talk) {
    let (session, wire) = joined(dispatcher, bot).await;
    let talk = Talk::on(wire);
    talk.hear(1).await;
    (session, talk)
}
