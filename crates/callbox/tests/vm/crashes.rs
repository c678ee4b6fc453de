//! Dispatchers that end in the middle of things: with a warning, and without.

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Dispatcher, Home, PATIENCE, Started, Wire, until};

const BOTS: &str = r#"
[bots.tiny]
image = "tiny"
memory_mib = 256
disk_mib = 64

[bots.cold]
image = "tiny"
start = "cold"
memory_mib = 256
disk_mib = 64
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_is_told_to_end_ends_its_calls_first() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let (talking, mut wire) = call(&dispatcher).await;
    let booting = dispatcher.start("cold").await;
    until("both machines run", PATIENCE, || home.machines() == 2).await;
    let (_, closed) = tokio::join!(dispatcher.terminate(), wire.closed());
    assert_eq!(closed, Some((1000, "dispatcher-shutdown".to_owned())));
    let dispatcher = Dispatcher::serving(&home, BOTS).await;
    for session in [talking, booting] {
        let session = dispatcher.session(&session.id).await;
        assert_eq!(session["state"], "ended", "{session}");
        assert_eq!(session["end_reason"]["code"], "dispatcher-shutdown", "{session}");
        assert_eq!(session["outcome"], "completed", "{session}");
    }
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_calls_and_starts_go_on() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let (talking, mut wire) = call(&dispatcher).await;
    let booting = dispatcher.start("cold").await;
    until("both machines run", PATIENCE, || home.machines() == 2).await;
    dispatcher.kill().await;
    assert_echo(&mut wire, "is anybody there?").await;

    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    assert_echo(&mut wire, "still there").await;
    assert_eq!(dispatcher.session(&talking.id).await["state"], "live");
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&talking.id).await.0, "client-left");
    // Nobody knows how far this one came: it is made anew, and its client can still come.
    let session = dispatcher.when("ready", &booting.id).await;
    assert_eq!(session["state"], "joining", "{session}");
    assert_eq!(home.machines(), 1);
    let mut wire = Wire::join(&dispatcher.taken_over(&booting)).await;
    assert_echo(&mut wire, "after the crash").await;
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&booting.id).await.0, "client-left");
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_claims_is_ended_unless_the_store_is_another_one() {
    let home = Home::new();
    Dispatcher::ready(&home, BOTS).await.stop().await;
    let database = home.data().join("callbox.db");
    let before = home.path().join("before-the-call");
    std::fs::copy(&database, &before).unwrap();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let (_, mut wire) = call(&dispatcher).await;
    dispatcher.kill().await;
    assert_echo(&mut wire, "still there").await;
    assert_eq!((home.machines(), home.relays().len()), (1, 1), "both outlive a crash");
    // A store that is not there, as when the variable that says where it is was forgotten.
    for file in ["callbox.db", "callbox.db-wal", "callbox.db-shm"] {
        std::fs::remove_file(home.data().join(file)).unwrap();
    }
    home.sweep(&[]).await.expect(1);
    assert_echo(&mut wire, "not swept").await;
    assert_eq!((home.machines(), home.relays().len()), (1, 1), "nothing was touched");
    // The right one, restored from before the call.
    std::fs::copy(&before, &database).unwrap();
    let dispatcher = Dispatcher::serving(&home, BOTS).await;
    until("the machine is swept", PATIENCE, || home.machines() == 0).await;
    let closed = wire.closed().await;
    assert_eq!(closed, Some((1011, "dispatcher-restarted".to_owned())));
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_made_whole_or_not_at_all() {
    let home = Home::without_templates();
    let being_made = "a template is being made";
    let dispatcher = Dispatcher::serving(&home, BOTS).await;
    until(being_made, PATIENCE, || home.machines() == 1).await;
    dispatcher.terminate().await;
    assert_eq!(templates(&home), 0);

    let dispatcher = Dispatcher::serving(&home, BOTS).await;
    until(being_made, PATIENCE, || home.machines() == 1).await;
    dispatcher.kill().await;

    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    assert_eq!((templates(&home), home.machines()), (1, 0));
    let (session, wire) = call(&dispatcher).await;
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    dispatcher.stop().await;
}

/// What is tried out before anything is served is written down as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_that_dies_while_it_tries_the_host_out_leaves_nothing_to_the_next_one() {
    let home = Home::new();
    let config = home.configure(BOTS);
    let mut left = 0;
    // The trial is short: whoever comes too late tries again.
    for _ in 0..20 {
        let mut serve = home.callbox(&["serve", "--config", config.to_str().unwrap()]);
        serve.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        let mut trying = serve.spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(trying.stdout.take().unwrap());
        let served = stdout.read_line(&mut line);
        let tried = until("a qemu is tried out", PATIENCE, || home.machines() == 1);
        tokio::select! { _ = served => {} () = tried => {} }
        trying.kill().await.unwrap();
        left = home.machines();
        if left > 0 {
            break;
        }
    }
    assert_eq!(left, 1, "no dispatcher was killed in time");
    let found = home.sweep(&["--dry-run"]).await.expect(0).json();
    assert_eq!(found["found"][0]["kind"], "unfinished", "{found}");
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    assert_eq!(home.machines(), 0);
    dispatcher.stop().await;
}

/// How many directories of templates there are, whole or not.
fn templates(home: &Home) -> usize {
    let entries = std::fs::read_dir(home.templates()).unwrap().flatten();
    entries.filter(|entry| entry.path().is_dir()).count()
}

/// A call in which the bot has been heard.
async fn call(dispatcher: &Dispatcher<'_>) -> (Started, Wire) {
    let session = dispatcher.start("tiny").await;
    let mut wire = Wire::join(&session).await;
    assert_echo(&mut wire, "hello").await;
    (session, wire)
}

async fn assert_echo(wire: &mut Wire, text: &str) {
    wire.send(text).await.unwrap();
    assert_eq!(wire.next().await, Message::text(text));
}
