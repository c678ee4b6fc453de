use std::sync::Arc;

use callbox_core::Fault;
use callbox_machines::{FakeProvider, Script, StartFault};
use callbox_server::serve::{self, ServeError};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::app::{TestApp, code};

/// Status, code, and that every client finds its text and what to do next.
async fn refused(answer: reqwest::Response) -> (u16, String) {
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.expect("every refusal is JSON");
    let expected = match (status, body["code"].as_str()) {
        (429, _) | (503, Some("shutting-down")) => "safe",
        (500.., _) => "same-key",
        _ => "never",
    };
    assert_eq!(body["retry"], expected, "{body}");
    for field in ["error", "info", "detail"] {
        assert!(body[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {body}");
    }
    (status, body["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_with_a_stable_code() {
    let app = TestApp::new().await;
    let post = async |body: &str| {
        let request = app.request(Method::POST, "/start", &app.public);
        refused(request.body(body.to_owned()).send().await.unwrap()).await
    };
    let bad = (400, "invalid-request".to_owned());
    for body in ["{", "[]", "null", "\"x\"", "{\"bot\": 7}", "\u{0}\u{1}", "{\"bot\":\"parrot\"} x"]
    {
        assert_eq!(post(body).await, bad, "{body:?}");
    }
    assert_eq!(post(r#"{"bot":"nobody"}"#).await, (404, "unknown-bot".into()));
    assert_eq!(post("{}").await, (404, "unknown-bot".into()), "more than one bot is configured");
    let transport = (400, "unknown-transport".to_owned());
    assert_eq!(post(r#"{"bot":"parrot","transport":"smoke"}"#).await, transport);
    assert_eq!(post(r#"{"bot":"small","transport":"fake"}"#).await, transport, "not allowed");
    assert_eq!(post(r#"{"bot":"parrot","createDailyRoom":true}"#).await, transport);
    let large = (413, "body-too-large".to_owned());
    let huge = format!("{{\"bot\":\"parrot\",\"body\":\"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(post(&huge).await, large);
    let long = json!({ "bot": "parrot", "body": "x".repeat(5000) }).to_string();
    assert_eq!(post(&long).await, large, "a websocket's body travels in a query");

    let many: serde_json::Map<_, _> = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
    for labels in
        [json!({ "": "x" }), json!({ "a": "x".repeat(257) }), json!({ "a": 1 }), json!(many)]
    {
        assert_eq!(post(&json!({ "bot": "parrot", "labels": labels }).to_string()).await, bad);
    }

    let get = async |method, path: &str| {
        refused(app.request(method, path, &app.private).send().await.unwrap()).await
    };
    assert_eq!(get(Method::GET, "/nowhere").await, (404, "unknown-path".into()));
    assert_eq!(get(Method::DELETE, "/start").await, (405, "wrong-method".into()));
    assert_eq!(get(Method::GET, "/v1/sessions/x").await, (404, "unknown-session".into()));
    assert_eq!(get(Method::GET, "/v1/sessions?limit=x").await, bad);
    assert_eq!(get(Method::GET, "/v1/sessions?before=x").await, bad);
    assert_eq!(get(Method::GET, "/v1/sessions?state=asleep").await, bad);
    let empty_key = app.request(Method::POST, "/start", &app.public).header("Idempotency-Key", "");
    assert_eq!(refused(empty_key.body("{\"bot\":\"parrot\"}").send().await.unwrap()).await, bad);
    assert_eq!(app.provider.made(), 0, "nothing was bought");
    app.finish().await;
}

#[tokio::test]
async fn keys_open_what_they_are_for() {
    let app = TestApp::new().await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    let (_, other) = app.start(json!({ "bot": "parrot" })).await;
    let show = format!("/v1/sessions/{id}");
    let token = |join: &Value| join["token"].as_str().unwrap().to_owned();
    let wrong = app.private.replace("cbk_prv", "cbk_pub");
    let cut = app.public[..app.public.len() - 1].to_owned();
    let cases = [
        ("/v1/sessions", app.public.clone(), 403),
        ("/v1/sessions", token(&join), 403),
        ("/v1/sessions", app.private.clone(), 200),
        (&show, app.public.clone(), 403),
        (&show, token(&join), 200),
        (&show, token(&other), 403),
        (&show, "nonsense".into(), 401),
        (&show, wrong, 401),
        (&show, cut, 401),
        (&show, "cbk_prv__".into(), 401),
        (&show, format!("{id}.00"), 401),
    ];
    for (path, key, status) in cases {
        let answer = app.request(Method::GET, path, &key).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path} with {key}");
    }
    let answer = app.anonymous(Method::POST, "/start").json(&json!({})).send().await.unwrap();
    assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], "Bearer");
    assert_eq!(refused(answer).await, (401, "unauthorized".into()));
    for open in ["/healthz", "/readyz", "/status", "/v1/info", "/openapi.json", "/metrics", "/"] {
        let answer = app.anonymous(Method::GET, open).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{open}");
    }
    app.finish().await;
}

#[tokio::test]
async fn browsers_of_strangers_are_not_served() {
    let app = TestApp::new().await;
    let request = app.request(Method::POST, "/start", &app.public);
    let answer =
        request.header(header::ORIGIN, "https://evil.example").json(&json!({"bot":"parrot"}));
    let answer = answer.send().await.unwrap();
    assert!(answer.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
    app.finish().await;
}

#[tokio::test]
async fn what_a_provider_refuses_ends_the_session_with_its_words() {
    let no_image = StartFault::Provider(Fault::refused("no such image"));
    let app = TestApp::with(Script { ensure_fails: Some(no_image), ..Script::default() }).await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    let session = app.wait(&id, "ended").await;
    assert_eq!(code(&session), "start-failed");
    assert_eq!(session.end_reason.unwrap().detail, "no such image");

    let log_tail = vec!["SyntaxError: invalid syntax".to_owned()];
    let bot = StartFault::Bot { detail: "the bot exited with code 1".into(), log_tail };
    app.provider.set(|script| script.ensure_fails = Some(bot));
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    assert_eq!(code(&app.wait(&id, "ended").await), "bot-not-ready");
    let logs: Value = app.get(&format!("/v1/sessions/{id}/logs")).await.json().await.unwrap();
    assert!(logs.to_string().contains("SyntaxError"), "the bot's last words are kept: {logs}");
    let waited = app.request(Method::POST, "/start?wait=ready", &app.public);
    let waited = waited.json(&json!({ "bot": "parrot" })).send().await.unwrap();
    assert!(waited.headers().contains_key("x-callbox-session-id"));
    assert_eq!(refused(waited).await, (409, "session-over".into()));
    app.finish().await;
}

#[tokio::test]
async fn without_keys_only_this_host_is_served_and_the_first_key_locks_the_door() {
    let app = TestApp::new().await;
    for key in app.plane.store.keys().await.unwrap() {
        app.plane.store.revoke_key(&key.id, callbox_server::now()).await.unwrap();
    }
    let start = async || {
        let request = app.anonymous(Method::POST, "/start").json(&json!({ "bot": "parrot" }));
        request.send().await.unwrap().status()
    };
    assert_eq!(start().await, StatusCode::OK);
    let page = app.anonymous(Method::POST, "/start").header(header::ORIGIN, "https://evil.example");
    let page = page.json(&json!({ "bot": "parrot" })).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::FORBIDDEN, "a stranger's page in our browser");
    let kind = callbox_server::keys::KeyKind::Public;
    let rebound = app.anonymous(Method::GET, "/v1/sessions").header(header::HOST, "evil.example");
    assert_eq!(rebound.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let made = callbox_server::keys::create(&*app.plane.store, kind, "", callbox_server::now());
    made.await.unwrap();
    assert_eq!(start().await, StatusCode::UNAUTHORIZED);
    app.finish().await;
}

#[tokio::test]
async fn without_keys_an_open_address_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Arc::new(FakeProvider::default());
    let plane =
        crate::app::plane(&crate::app::config(""), dir.path(), provider, Arc::default()).await;
    // Bound, but never served: the refusal comes first.
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = serve::run(plane, listener, None, std::future::pending()).await;
    assert!(matches!(refused, Err(ServeError::Open { .. })), "{refused:?}");
}
