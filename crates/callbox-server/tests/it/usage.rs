//! What a machine uses is measured over its life and kept with the session.

use std::time::Duration;

use callbox_core::{EventKind, Usage};
use callbox_machines::Script;
use serde_json::json;

use crate::app::TestApp;

#[tokio::test]
async fn moments_are_kept_and_the_highest_too() {
    let usage = |unique_bytes| {
        Some(Usage { unique_bytes, shared_bytes: 1000, cpu: Duration::from_millis(20) })
    };
    let app = TestApp::with(Script { usage: usage(100), ..Script::default() }).await;
    let (id, _) = app.start(json!({ "bot": "parrot", "transport": "fake" })).await;
    let ready = app.until(&id, |session| {
        session.usage.as_ref().is_some_and(|usage| usage.ready_unique_bytes.is_some())
    });
    let ready = ready.await.usage.unwrap();
    assert_eq!((ready.ready_unique_bytes, ready.shared_bytes), (Some(100), 1000));

    app.provider.set(|script| script.usage = usage(900));
    app.tell(&id, EventKind::Audible);
    app.until(&id, |session| {
        session.usage.as_ref().is_some_and(|usage| usage.audible_unique_bytes == Some(900))
    })
    .await;
    app.provider.set(|script| script.usage = usage(500));
    app.tell(&id, EventKind::ClientLeft { detail: "a test".into() });
    let ended = app.wait(&id, "ended").await.usage.unwrap();
    assert_eq!((ended.unique_bytes, ended.end_unique_bytes), (500, Some(500)));
    assert_eq!((ended.highest_unique_bytes, ended.ready_unique_bytes), (900, Some(100)));
    assert!((ended.cpu_ms - 20.0).abs() < f64::EPSILON);
    app.finish().await;
}

#[tokio::test]
async fn a_provider_that_cannot_tell_is_no_trouble() {
    let app = TestApp::new().await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    assert_eq!(app.wait(&id, "ready").await.usage, None);
    app.finish().await;
}
