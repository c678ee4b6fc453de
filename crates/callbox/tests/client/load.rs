//! `callbox bench load` starts its own dispatcher, and takes it away again.

use crate::support::binary::{begin, callbox_with, finish, interrupt};

const NOBODY: &str = "http://127.0.0.1:1";

/// A directory for temporary files that nobody else uses.
fn alone() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    (dir, path)
}

#[track_caller]
fn nothing_is_left(dir: &tempfile::TempDir) {
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_small_load_is_carried_and_nothing_is_left() {
    let (dir, path) = alone();
    let arguments =
        ["bench", "load", "--sessions", "3,6", "--seconds", "1", "--rate", "5", "--json"];
    // What is meant for another dispatcher does not reach this one.
    let environment = [("TMPDIR", path.as_str()), ("CALLBOX_LIMITS__MAX_SESSIONS", "1")];
    let report = callbox_with(NOBODY, &arguments, &environment).await.expect(0).json();
    assert_eq!(report["benchmark"], "load");
    assert!(report["host"]["cores"].as_u64().unwrap() > 0);
    assert!(report["fake_machine_bytes"].as_u64().unwrap() > 0);
    let rounds = report["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    for (round, sessions) in rounds.iter().zip([3, 6]) {
        assert_eq!(round["sessions"], sessions);
        assert_eq!(round["fill"]["start_ms"]["count"], sessions);
        assert_eq!(round["steady"]["start_ms"]["count"], 5, "{round}");
        assert_eq!(round["failures"], serde_json::json!({}));
        // A socket each at least.
        assert!(round["memory"]["live"]["open_files"].as_u64().unwrap() > sessions);
    }
    assert!(report["ratios"]["6_over_3"]["memory_per_session"].is_number(), "{report}");
    nothing_is_left(&dir);
}

#[tokio::test]
async fn who_interrupts_it_finds_nothing_left() {
    let (dir, path) = alone();
    let arguments = ["bench", "load", "--sessions", "2", "--seconds", "600", "--rate", "1"];
    let run = begin(NOBODY, &arguments, &[("TMPDIR", path.as_str())]);
    let made = async {
        while std::fs::read_dir(dir.path()).unwrap().next().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), made).await.expect("it begins");
    interrupt(&run);
    finish(run).await.expect(130).says(&["interrupted"]);
    nothing_is_left(&dir);
}

#[tokio::test]
async fn what_cannot_be_measured_is_a_usage_error() {
    for arguments in [["--sessions", "0"], ["--rate", "fast"], ["--rate", "0"], ["--within", "0"]] {
        let all = [&["bench", "load"][..], &arguments].concat();
        callbox_with(NOBODY, &all, &[]).await.expect(2);
    }
}
