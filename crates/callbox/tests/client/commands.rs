//! The other commands, against the same dispatcher in miniature.

use callbox_protocol::api::SessionState;

use crate::support::binary::{callbox, callbox_with};
use crate::support::{Mood, StandIn};

/// Two that have ended, one that is starting.
async fn three_sessions() -> StandIn {
    let stand_in = StandIn::new(Mood::Parrot).await;
    stand_in.add(1, "parrot", SessionState::Ended);
    stand_in.add(2, "other", SessionState::Ended);
    stand_in.add(3, "other", SessionState::Starting);
    stand_in
}

#[tokio::test]
async fn sessions_are_listed_shown_and_stopped() {
    let stand_in = three_sessions().await;
    let url = &stand_in.url;

    let ps = callbox(url, &["ps"]).await.expect(0);
    assert_eq!(ps.stdout.lines().count(), 2, "{ps:?}");
    assert!(ps.stdout.contains("0000003a") && ps.stdout.contains("starting"), "{ps:?}");
    let all = callbox(url, &["ps", "--all"]).await.expect(0);
    assert_eq!(all.stdout.lines().count(), 4, "{all:?}");
    assert!(all.stdout.contains("client-left"), "{all:?}");
    let one = callbox(url, &["ps", "--all", "--bot", "parrot", "--json"]).await.expect(0).json();
    assert_eq!(one["sessions"].as_array().unwrap().len(), 1);
    let two = callbox(url, &["ps", "--all", "--limit", "2", "--json"]).await.expect(0).json();
    assert_eq!(two["sessions"].as_array().unwrap().len(), 2);
    let two = callbox(url, &["ps", "--all", "--limit", "2"]).await.expect(0);
    two.says(&["there are more than these 2; --limit N shows N"]);
    let three = callbox(url, &["ps", "--all", "--limit", "3"]).await.expect(0);
    assert_eq!(three.stderr, "", "there are no more");
    callbox(url, &["ps", "--limit", "0"]).await.expect(2);

    let show = callbox(url, &["show", "0000001"]).await.expect(0);
    assert!(show.stdout.contains("restore") && show.stdout.contains("client-left"), "{show:?}");
    let id = stand_in.session(0).id;
    let json = callbox(url, &["show", &id, "--json"]).await.expect(0).json();
    assert_eq!(json["id"], id);

    let stop = callbox(url, &["stop", "0000003a", "--wait", "5"]).await.expect(0);
    assert!(stop.stdout.contains("stopped"), "{stop:?}");
    let none = callbox(url, &["ps"]).await.expect(0);
    assert_eq!(none.stdout, "no sessions are alive\n");
}

#[tokio::test]
async fn a_session_that_does_not_end_in_time_is_an_error() {
    let stand_in = StandIn::new(Mood::Immortal).await;
    stand_in.add(1, "parrot", SessionState::Live);
    callbox(&stand_in.url, &["stop", "0000001a"]).await.expect(0);
    let ran = callbox(&stand_in.url, &["stop", "0000001a", "--wait", "1"]).await.expect(1);
    ran.says(&["has not ended after 1 s"]);
}

#[tokio::test]
async fn names_that_fit_nothing_or_too_much_are_usage_errors() {
    let stand_in = three_sessions().await;
    let url = &stand_in.url;
    callbox(url, &["show", "000000"]).await.expect(2).says(&["more than one"]);
    callbox(url, &["show", "ffff"]).await.expect(2).says(&["no session's id begins with"]);
    callbox(url, &["logs", "../v1"]).await.expect(2).says(&["is not a session id"]);
    let unknown = "ffffffff-0000-4000-8000-000000000000";
    callbox(url, &["stop", unknown]).await.expect(2).says(&["there is no session"]);
}

#[tokio::test]
async fn logs_are_printed_and_followed() {
    let stand_in = three_sessions().await;
    for arguments in [&["logs", "0000001"][..], &["logs", "-f", "0000001"]] {
        let logs = callbox(&stand_in.url, arguments).await.expect(0);
        assert!(logs.stdout.contains("dispatcher started"), "{logs:?}");
        assert!(!logs.stdout.contains('\x1b'), "{logs:?}");
        let lines = callbox(&stand_in.url, &[arguments, &["--json"]].concat()).await.expect(0);
        assert_eq!(lines.stdout.lines().count(), 2);
        let last: serde_json::Value =
            serde_json::from_str(lines.stdout.lines().last().unwrap()).unwrap();
        assert_eq!(last["source"], "bot");
    }
}

#[tokio::test]
async fn a_benchmark_is_a_distribution() {
    let stand_in = StandIn::new(Mood::Parrot).await;
    for mode in ["seq", "burst"] {
        let bench = ["bench", "start", "--from", "clone", "--n", "3", "--mode", mode];
        let json = callbox(&stand_in.url, &[&bench[..], &["--json"]].concat()).await;
        let report = json.expect(0).json();
        assert_eq!(report["runs"], 3);
        assert_eq!(report["failed"], 0);
        assert_eq!(report["stages_ms"]["ready"]["p50"], 240.0);
        assert_eq!(report["start_stages_ms"]["restore"]["p99"], 150.0);
        assert_eq!(report["client_ms"]["first_sound"]["count"], 3);
        assert_eq!(report["accelerators"][0], "kvm");
        assert!(report["host"]["cores"].as_u64().unwrap() > 0);
        let table = callbox(&stand_in.url, &bench).await.expect(0);
        assert!(table.stdout.contains("start from clone · "), "{table:?}");
        assert!(table.stdout.contains("3 of 3 good"), "{table:?}");
    }
}

#[tokio::test]
async fn a_burst_counts_who_waited_and_who_was_sent_away_and_neither_has_failed() {
    let stand_in = StandIn::new(Mood::Crowded).await;
    let bench = ["bench", "start", "--from", "clone", "--n", "6", "--mode", "burst", "--json"];
    let report = callbox(&stand_in.url, &bench).await.expect(0).json();
    let outcomes = &report["outcomes"];
    let count = |name: &str| outcomes[name].as_u64().unwrap();
    assert_eq!(
        (count("admitted"), count("queued"), count("refused"), count("failed")),
        (2, 2, 2, 0)
    );
    assert_eq!(outcomes["highest_position"], 4);
    assert_eq!(outcomes["retry_after_s"]["max"], 7.0);
    // 200 ms, of which 150 restore and 30 wake the machine.
    assert_eq!(report["overhead_ms"]["p50"], 20.0);
    assert_eq!(report["unique_bytes"]["ready"]["count"], 4);
    assert!(report["wall_ms"].as_f64().unwrap() > 0.0);
    let table = callbox(&stand_in.url, &bench[..8]).await.expect(0);
    assert!(table.stdout.contains("2 admitted at once, 2 queued (highest"), "{table:?}");
    assert!(table.stdout.contains("  overhead"), "{table:?}");
}

#[tokio::test]
async fn runs_from_a_reserve_wait_for_it_and_what_is_no_reserve_is_told_apart() {
    let stand_in = StandIn::new(Mood::Parrot).await;
    let bench = ["bench", "start", "--from", "reserve", "--n", "2", "--mode", "burst", "--json"];
    let report = callbox(&stand_in.url, &bench).await.expect(0).json();
    assert_eq!((&report["otherwise"]["clone"], &report["failed"]), (&2.into(), &0.into()));
    assert_eq!(report["stages_ms"], serde_json::json!({}), "their numbers are not the reserve's");
    let bench = [&bench[..6], &["--bot", "nobody"]].concat();
    callbox(&stand_in.url, &bench).await.expect(2).says(&["\"nobody\" has no reserve"]);
    let bench = ["bench", "start", "--from", "clone", "--idle", "1"];
    callbox(&stand_in.url, &bench).await.expect(2).says(&["--from reserve"]);
}

#[tokio::test]
async fn several_benchmarks_are_compared() {
    let stand_in = StandIn::new(Mood::Parrot).await;
    let bench = ["bench", "start", "--from", "clone", "--n", "2", "--mode", "both", "--json"];
    let summary = callbox(&stand_in.url, &bench).await.expect(0).json();
    assert_eq!(summary["reports"].as_array().unwrap().len(), 2);
    assert_eq!(summary["ratios"]["clone_burst_over_seq"], 1.0);
}

#[tokio::test]
async fn memory_is_listed() {
    let stand_in = three_sessions().await;
    let ps = callbox(&stand_in.url, &["ps", "--memory"]).await.expect(0);
    assert!(ps.stdout.contains("UNIQUE") && ps.stdout.contains("28.6 MiB"), "{ps:?}");
    assert!(ps.stdout.ends_with("1 machines, 28.6 MiB of their own in all\n"), "{ps:?}");
    let json = callbox(&stand_in.url, &["ps", "--memory", "--json"]).await.expect(0).json();
    assert_eq!(json["memory"]["highest_unique_bytes"], 40_000_000);
    assert_eq!(json["sessions"][0]["usage"]["shared_bytes"], 90_000_000);
}

#[tokio::test]
async fn costs_are_added_up() {
    let stand_in = three_sessions().await;
    let costs = callbox(&stand_in.url, &["costs"]).await.expect(0);
    for words in ["BOT", "MACHINE HOURS", "TOTAL", "0.7500", "RESERVE", "list prices of 2026-06-07"]
    {
        assert!(costs.stdout.contains(words), "{words}: {costs:?}");
    }
    for (by, lines) in [("bot", 2), ("day", 1), ("session", 3)] {
        let json = callbox(&stand_in.url, &["costs", "--by", by, "--json"]).await.expect(0).json();
        assert_eq!(json["lines"].as_array().unwrap().len(), lines, "{by}: {json:#}");
        assert_eq!(
            (&json["total"]["sessions"], &json["total"]["machine_usd"]),
            (&3.into(), &0.75.into())
        );
        assert_eq!(json["bots"][0]["reserve_usd_per_day"], 1.0);
    }
    callbox(&stand_in.url, &["costs", "--since", "soon"]).await.expect(2).says(&["no span"]);
    let show = callbox(&stand_in.url, &["show", &stand_in.session(0).id]).await.expect(0);
    assert!(show.stdout.contains("0.2500 USD"), "{show:?}");
}

#[tokio::test]
async fn a_benchmark_of_something_else_fails() {
    let stand_in = StandIn::new(Mood::Parrot).await;
    let bench = ["bench", "start", "--from", "cold", "--n", "2"];
    let ran = callbox(&stand_in.url, &bench).await.expect(4);
    assert!(ran.stdout.contains("2 failed  started from clone, not from cold"), "{ran:?}");
    ran.says(&["2 of 2 starts failed"]);

    let stand_in = StandIn::new(Mood::StartFails).await;
    let bench = ["bench", "start", "--from", "clone", "--n", "2", "--json"];
    let report = callbox(&stand_in.url, &bench).await.expect(4).json();
    assert_eq!(report["failures"]["machine-lost: it went away"], 2);
}

#[tokio::test]
async fn completions_need_no_dispatcher() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = callbox("http://127.0.0.1:9", &["completions", shell]).await.expect(0);
        assert!(ran.stdout.contains("callbox"));
    }
}

#[tokio::test]
async fn help_names_the_exit_codes() {
    let help = callbox_with("http://127.0.0.1:9", &["--help"], &[]).await.expect(0);
    assert!(help.stdout.contains("Exit codes:"), "{help:?}");
    for command in ["call", "ps", "show", "logs", "stop", "bench", "completions"] {
        let help = callbox("http://127.0.0.1:9", &[command, "--help"]).await.expect(0);
        assert!(help.stdout.contains("Usage: callbox"), "{help:?}");
    }
}
