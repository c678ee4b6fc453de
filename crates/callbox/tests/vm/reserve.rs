//! Machines that wait for their session, and templates that are damaged.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use crate::support::{Dispatcher, Home, PATIENCE, Wire};

const BOTS: &str = r#"
[bots.tiny]
image = "tiny"
memory_mib = 256
disk_mib = 64
reserve = { min = 2, max = 3 }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn sessions_take_machines_from_the_reserve_and_it_is_filled_again() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    for round in ["first", "second", "third"] {
        full(&dispatcher, 2).await;
        let session = dispatcher.start("tiny").await;
        let mut wire = Wire::join(&session).await;
        wire.send(round).await.unwrap();
        assert_eq!(wire.next().await, Message::text(round));
        let seen = dispatcher.session(&session.id).await;
        assert_eq!(seen["start"], "reserve", "{seen}");
        let stages: Vec<_> = seen["start_stages"].as_array().unwrap().iter().collect();
        let names: Vec<_> = stages.iter().map(|stage| stage["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["claim", "resume", "wake"], "{seen}");
        wire.hang_up().await;
        assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    }
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_the_reserve_that_died_is_nobodys_and_replaced() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    full(&dispatcher, 2).await;
    home.end_machines();
    // A start that comes before the loss was seen gets a fresh machine instead.
    let session = dispatcher.start("tiny").await;
    let mut wire = Wire::join(&session).await;
    wire.send("still").await.unwrap();
    assert_eq!(wire.next().await, Message::text("still"));
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    full(&dispatcher, 2).await;
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_of_a_dispatcher_that_died_is_removed_by_the_next_or_by_sweep() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    full(&dispatcher, 2).await;
    // Under its hands, living sessions would lose what they have.
    let refused = home.sweep(&["--all"]).await.expect(1);
    refused.explains(&["another dispatcher"]);
    dispatcher.kill().await;
    assert_eq!(home.machines(), 2, "a reserve outlives a crash");
    let found = home.sweep(&["--dry-run"]).await.expect(0).json();
    let kinds: Vec<_> = found["found"].as_array().unwrap().iter().map(|one| &one["kind"]).collect();
    assert_eq!(kinds, ["reserve", "reserve"], "{found}");
    assert_eq!(home.machines(), 2, "a dry run removes nothing");
    home.sweep(&[]).await.expect(0);
    assert_eq!(home.machines(), 0);

    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    full(&dispatcher, 2).await;
    dispatcher.kill().await;
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    full(&dispatcher, 2).await;
    assert_eq!(home.machines(), 2, "the old reserve is gone, the new one is there");
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_template_is_refused_and_made_again() {
    let home = Home::without_templates();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    full(&dispatcher, 2).await;
    let running = dispatcher.start("tiny").await;
    let mut wire = Wire::join(&running).await;
    // Under the feet of clones that live: they have what was checked, not the file.
    let damage = |what: &dyn Fn(&std::path::Path)| {
        let templates = std::fs::read_dir(home.templates()).unwrap().flatten();
        for template in templates.filter(|entry| entry.path().is_dir()) {
            what(&template.path().join("mem"));
        }
    };
    damage(&|memory| {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::OpenOptions::new().write(true).open(memory).unwrap();
        file.write_all_at(b"not what was baked", 64 << 20).unwrap();
    });
    wire.send("untouched").await.unwrap();
    assert_eq!(wire.next().await, Message::text("untouched"));
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&running.id).await.0, "client-left");
    dispatcher.stop().await;

    for how in ["changed", "missing or cut short"] {
        let dispatcher = Dispatcher::ready(&home, BOTS).await;
        assert!(home.log().contains(how), "the damage was not told: {how}");
        full(&dispatcher, 2).await;
        dispatcher.stop().await;
        damage(&|memory| std::fs::remove_file(memory).unwrap());
    }
}

/// Waits until so many machines of the reserve are ready.
async fn full(dispatcher: &Dispatcher<'_>, count: u64) {
    let filled = async {
        loop {
            let info = dispatcher.get("/v1/info").await.body;
            if info["reserves"]["tiny"]["ready"].as_u64() >= Some(count) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, filled).await.expect("the reserve is filled");
}
