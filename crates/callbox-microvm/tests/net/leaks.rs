//! Whoever dies, in whatever order, nothing is left.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use callbox_microvm::net::{Found, NetRecord, Networks, clear, leftovers, remove};

use crate::place::Guest;
use crate::stage::{OPEN, PATIENCE, UDP, answers, play, plug};

/// Tells [`one_that_is_killed`] its data directory.
const KILLED_IN: &str = "CALLBOX_TEST_KILLED_IN";

#[test]
fn a_network_goes_with_the_last_holder_of_its_descriptor() {
    play(async |stage| {
        let networks = stage.networks();
        let one = plug(&networks, &[]).await;
        let other = plug(&networks, &[]).await;
        assert_eq!(links().len(), 2);
        let copy = one.card.try_clone().unwrap();
        drop(one);
        drop(other);
        soon("one link", || links().len() == 1).await;
        drop(copy);
        soon("no link", || links().is_empty()).await;
        networks.tidy().await.unwrap();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn what_is_removed_is_gone_at_once_and_no_other_in_its_place() {
    play(async |stage| {
        let networks = stage.networks();
        let one = plug(&networks, &[]).await;
        let other = plug(&networks, &[]).await;
        remove(&one.record).await.unwrap();
        remove(&one.record).await.expect("removing what is gone is fine");
        assert_eq!(links(), [link(&other.record)], "its machine still holds the descriptor");
        // As if its name had been given again.
        let NetRecord::Namespace { link, address, names, .. } = other.record.clone() else {
            panic!("root")
        };
        let mac = "06:cb:00:00:00:00".to_owned();
        remove(&NetRecord::Namespace { link, mac, address, names }).await.unwrap();
        assert_eq!(links().len(), 1, "another machine's network was removed");
    });
}

#[test]
fn a_sweep_removes_what_is_nobodys_and_never_anothers() {
    play(async |stage| {
        let foreign = stage.foreign_networks();
        let stranger = Guest::behind(plug(&foreign, &[]).await);
        let dead = stage.networks();
        let kept = plug(&dead, &[]).await;
        let lost = plug(&dead, &[]).await;
        // The next dispatcher knows of one of them only.
        let next = stage.networks();
        let mine = plug(&next, &[]).await;
        let data = stage.data.path();
        let keep = [kept.record.clone(), mine.record.clone()];
        let left = leftovers(data, &keep).await.unwrap();
        assert_eq!(left, [Found::Link(link(&lost.record))]);
        for found in &left {
            clear(data, found).await.unwrap();
        }
        assert_eq!(leftovers(data, &keep).await.unwrap(), []);
        let guest = Guest::behind(kept);
        guest.place.run(|| assert!(answers(OPEN[0], UDP), "the kept one works"));
        drop((guest, mine));
        soon("our links to go", || links().len() == 1).await;
        let left = leftovers(data, &[]).await.unwrap();
        assert!(matches!(left.as_slice(), [Found::Table(_)]), "{left:?}");
        clear(data, &left[0]).await.unwrap();
        assert_eq!(leftovers(data, &[]).await.unwrap(), []);
        stranger.place.run(|| assert!(answers(OPEN[0], UDP), "the other deployment's works"));
    });
}

#[test]
fn rules_that_somebody_flushed_come_back() {
    play(async |stage| {
        let networks = stage.networks();
        let guest = Guest::behind(plug(&networks, &[]).await);
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        networks.tidy().await.unwrap();
        guest.place.run(|| assert!(answers(OPEN[0], UDP)));
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        let _another = plug(&networks, &[]).await;
        guest.place.run(|| assert!(answers(OPEN[0], UDP)));
    });
}

#[test]
fn twenty_deaths_leave_nothing() {
    play(async |stage| {
        let networks = stage.networks();
        let (mut made, mut removed) = (Vec::new(), Vec::new());
        for round in 0..20 {
            let started = Instant::now();
            let plug = plug(&networks, &[]).await;
            made.push(started.elapsed());
            kill_one(stage.data.path(), round % 4);
            let started = Instant::now();
            remove(&plug.record).await.unwrap();
            removed.push(started.elapsed());
        }
        eprintln!("make: {}; remove: {}", spread(&mut made), spread(&mut removed));
        soon("no link", || links().is_empty()).await;
        networks.tidy().await.unwrap();
        assert_eq!(leftovers(stage.data.path(), &[]).await.unwrap(), []);
        assert_eq!(ruleset(), "");
    });
}

/// Starts another process that makes networks in the same directory without end, and kills it in
/// the middle of the one after `whole` of them.
fn kill_one(data: &Path, whole: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leaks::one_that_is_killed", "--ignored", "--nocapture"])
        .env(KILLED_IN, data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let making = lines.map(Result::unwrap).filter(|line| line.contains("making a network"));
    assert_eq!(making.take(whole + 1).count(), whole + 1, "it ended by itself");
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
#[ignore = "a part of twenty_deaths_leave_nothing"]
fn one_that_is_killed() {
    let data = std::env::var_os(KILLED_IN).expect("started by the other test");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let networks = Networks::open(Path::new(&data), Default::default()).unwrap();
        let mut all = Vec::new();
        loop {
            println!("making a network");
            all.push(plug(&networks, &[]).await);
        }
    });
}

fn link(record: &NetRecord) -> String {
    match record {
        NetRecord::Namespace { link, .. } => link.clone(),
        NetRecord::Passt { .. } => panic!("root"),
    }
}

/// The host's ends of all machines' links.
fn links() -> Vec<String> {
    let output = Command::new("ip").args(["-j", "link", "show"]).output().unwrap();
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = all.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap());
    names.filter(|name| name.starts_with("cbx-")).map(str::to_owned).collect()
}

fn ruleset() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

async fn soon(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no {what}"));
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    format!("p50 {:?}, p95 {:?}, max {:?}", at(50), at(95), at(100))
}
