#![allow(clippy::unwrap_used)]

use callbox_protocol::api::{EndReason, Stage};

use super::*;

const UNICODE: Look = Look { colour: false, unicode: true };
const ASCII: Look = Look { colour: false, unicode: false };

fn session() -> Session {
    let json = serde_json::json!({
        "id": "3f9c2a41-8f0e-4f4e-9d5a-0c1b2d3e4f50", "bot": "parrot", "transport": "websocket",
        "provider": "local", "state": "ended", "outcome": "completed", "incarnation": 1,
        "end_reason": {"code": "client-left", "detail": "the client closed its connection"},
        "machine": "m", "accelerator": "kvm", "start": "clone", "deadline_at": null,
        "moments": {},
        "stages_ms": {"accepted": 0, "started": 212.4, "ready": 240.1, "joined": 31.3,
                      "audible": 388.0, "ended": 4210.0},
        "start_stages": [{"name": "restore", "ms": 141.0}, {"name": "link", "ms": 32.0},
                         {"name": "wake", "ms": 34.0}],
    });
    serde_json::from_value(json).unwrap()
}

const GREETED: Option<f64> = Some(401.0);

#[test]
fn a_clone_on_kvm() {
    insta::assert_snapshot!(render(&session(), GREETED, UNICODE));
}

#[test]
fn the_same_in_ascii() {
    insta::assert_snapshot!(render(&session(), GREETED, ASCII));
}

#[test]
fn a_slow_cold_start_that_never_became_audible() {
    let mut session = session();
    session.start = Some("cold".into());
    session.accelerator = Some("tcg".into());
    session.outcome = Some(Outcome::Failed);
    session.stages_ms.started = Some(14_200.0);
    session.stages_ms.ready = None;
    session.stages_ms.audible = None;
    session.start_stages = vec![
        Stage { name: "boot".into(), ms: 11_000.0 },
        Stage { name: "a-long-stage-name".into(), ms: 3_100.0 },
    ];
    session.end_reason =
        Some(EndReason { code: "ready-timeout".into(), detail: "not ready in 30 s".into() });
    let text = render(&session, None, UNICODE) + &end_line(&session, UNICODE);
    insta::assert_snapshot!(text);
}

#[test]
fn a_start_that_had_to_wait_for_room() {
    let mut session = session();
    session.stages_ms.admitted = Some(0.0);
    assert!(!render(&session, None, UNICODE).contains("admitted"), "it did not wait");
    session.stages_ms.admitted = Some(1_900.0);
    session.stages_ms.started = Some(2_112.4);
    session.stages_ms.ready = Some(2_140.1);
    session.stages_ms.audible = Some(2_288.0);
    insta::assert_snapshot!(render(&session, None, UNICODE));
}

#[test]
fn nothing_yet() {
    let mut session = session();
    session.stages_ms = Default::default();
    session.start_stages.clear();
    insta::assert_snapshot!(render(&session, None, UNICODE));
}

#[test]
fn it_fits_a_terminal_of_80_columns() {
    for line in render(&session(), GREETED, UNICODE).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn senseless_times_and_names_are_drawn_without_harm() {
    let mut session = session();
    session.stages_ms.started = Some(f64::NAN);
    session.stages_ms.ready = Some(-5.0);
    session.stages_ms.audible = Some(1e300);
    session.start_stages = vec![
        Stage { name: "\x1b[31m".into(), ms: f64::INFINITY },
        Stage { name: "\u{202e}é".repeat(50), ms: 1e200 },
    ];
    session.bot = "\x07".repeat(100);
    let text = render(&session, None, UNICODE);
    assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text}");
}

#[test]
fn spans_are_short() {
    let spans = [0.0, 9.94, 9.95, 9_999.0, 10_000.0, 3.6e6, f64::INFINITY];
    let texts = spans.map(span);
    assert_eq!(texts, ["0.0 ms", "9.9 ms", "10 ms", "9999 ms", "10.0 s", "60 min", "for ever"]);
}
