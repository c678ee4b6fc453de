//! What becomes of a call when the other side behaves badly: cut connections, half answers,
//! silence, nonsense, too much; and what is sent.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use axum::routing::any;
use callbox_fly::wire::{CreateMachine, State};
use callbox_fly::{Client, Error, ErrorKind, Happened, ListFilter, Stop, Token, Wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(10);

fn client(base: &str) -> Client {
    Client::new(base, &Token::new("fm2_geheim")).unwrap()
}

/// A server that answers every request with these bytes, and then cuts the connection.
async fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_request(&mut stream).await;
            let _ = stream.write_all(bytes).await;
        }
    });
    base
}

async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => request.extend_from_slice(&chunk[..read]),
        }
    }
}

async fn create(base: &str, limit: Duration) -> Error {
    client(base).create("app", &CreateMachine::default(), limit).await.unwrap_err()
}

#[tokio::test]
async fn a_connection_that_is_cut_loses_the_answer() {
    for bytes in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nfly-request-id: r\r\ncontent-length: 100\r\n\r\n{\"id\":",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n<html>no!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"SMTP hello\r\n\r\n",
    ] {
        let error = create(&answering(bytes).await, LIMIT).await;
        assert_eq!(error.kind, ErrorKind::AnswerLost, "{:?}", String::from_utf8_lossy(bytes));
        assert_eq!(error.happened(), Happened::Maybe);
        assert!(!error.to_string().contains("geheim"));
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let spaces = vec![b' '; 1 << 20];
        while stream.write_all(&spaces).await.is_ok() {}
    });
    let error = client(&base).list("app", &ListFilter::default(), LIMIT).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::AnswerLost);
    assert!(error.text.contains("more than"), "{error}");
}

#[tokio::test]
async fn silence_ends_at_the_callers_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let error = create(&base, Duration::from_millis(50)).await;
    assert_eq!(error.kind, ErrorKind::AnswerLost);
    assert_eq!(error.text, "no answer within 50 ms");
}

#[tokio::test]
async fn nobody_there_means_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = create(&base, LIMIT).await;
    assert_eq!(error.kind, ErrorKind::NotSent);
    assert_eq!(error.happened(), Happened::No);
}

/// A server that records the requests' lines and headers, and answers with `status` and `body`.
async fn recording(
    status: u16,
    body: &'static str,
) -> (String, Arc<Mutex<Vec<(String, HeaderMap)>>>) {
    let seen: Arc<Mutex<Vec<(String, HeaderMap)>>> = Arc::default();
    let record = seen.clone();
    let answer = move |request: Request| {
        let line = format!("{} {}", request.method(), request.uri());
        record.lock().unwrap().push((line, request.headers().clone()));
        async move {
            let mut headers = HeaderMap::new();
            let set = |headers: &mut HeaderMap, name: &'static str, value| {
                headers.insert(name, HeaderValue::from_static(value));
            };
            set(&mut headers, "set-cookie", "fly_flaps_affinity=node7; Path=/v1/apps/app");
            set(&mut headers, "fly-request-id", "01HX-iad");
            set(&mut headers, "location", "/elsewhere");
            (axum::http::StatusCode::from_u16(status).unwrap(), headers, body)
        }
    };
    let router = Router::new().fallback(any(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (base, seen)
}

#[tokio::test]
async fn paths_queries_and_headers_are_flys() {
    let (base, seen) = recording(200, r#"{"id":"m1","ok":true}"#).await;
    let fly = client(&base);
    fly.create("app", &CreateMachine::default(), LIMIT).await.unwrap();
    fly.get("app", "m1", LIMIT).await.unwrap();
    let filter = ListFilter {
        summary: true,
        region: Some("iad".into()),
        states: vec![State::Started, State::Created],
        metadata: [("a b".to_owned(), "c&d".to_owned())].into(),
        include_deleted: true,
    };
    // An object is no list.
    let error = fly.list("app", &filter, LIMIT).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::AnswerLost);
    let wait = Wait {
        states: vec![State::Started, State::Failed],
        version: Some("v1".into()),
        from_event_id: Some("e1".into()),
        timeout: Some(Duration::from_secs(90)),
    };
    fly.wait("app", "m1", &wait, LIMIT).await.unwrap();
    let stop = Stop { signal: Some("SIGTERM".into()), timeout: Some(Duration::from_secs(30)) };
    fly.stop("app", "m1", &stop, LIMIT).await.unwrap();
    fly.destroy("app", "m1", true, LIMIT).await.unwrap();
    fly.destroy("../a", "m?1", false, LIMIT).await.unwrap();
    fly.set_metadata("app", "m1", "a/b", "c", LIMIT).await.unwrap();
    fly.acquire_lease("app", "m1", Duration::from_secs(30), Some("n1"), LIMIT).await.unwrap();
    let seen = seen.lock().unwrap();
    let lines: Vec<&str> = seen.iter().map(|(line, _)| line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "POST /v1/apps/app/machines",
            "GET /v1/apps/app/machines/m1",
            "GET /v1/apps/app/machines?summary=true&include_deleted=true&region=iad\
             &state=started%2Ccreated&metadata.a+b=c%26d",
            "GET /v1/apps/app/machines/m1/wait?state=started&state=failed&version=v1\
             &from_event_id=e1&timeout=60",
            "POST /v1/apps/app/machines/m1/stop",
            "DELETE /v1/apps/app/machines/m1?force=true",
            "DELETE /v1/apps/..%2Fa/machines/m%3F1",
            "POST /v1/apps/app/machines/m1/metadata/a%2Fb",
            "POST /v1/apps/app/machines/m1/lease?ttl=30",
        ]
    );
    for (_, headers) in seen.iter() {
        assert_eq!(headers["authorization"], "FlyV1 fm2_geheim");
    }
    assert_eq!(seen[8].1["fly-machine-lease-nonce"], "n1");
    assert!(!seen[0].1.contains_key("cookie"));
    assert_eq!(seen[1].1["cookie"], "fly_flaps_affinity=node7");
    assert!(!seen[6].1.contains_key("cookie"), "the cookie belongs to one app");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (base, seen) = recording(307, "").await;
    let error = create(&base, LIMIT).await;
    assert_eq!((error.kind.clone(), error.status), (ErrorKind::Other, Some(307)));
    assert_eq!(error.request_id.as_deref(), Some("01HX-iad"));
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn waiting_ends_at_the_callers_deadline() {
    let (base, _) = recording(
        408,
        r#"{"error":"deadline_exceeded: machine failed to reach desired state, started, currently created"}"#,
    )
    .await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let wait = Wait::for_any([State::Started, State::Destroyed]);
    let error = client(&base).wait_until("app", "m1", &wait, deadline).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout { currently: Some(State::Created) });
    assert!(Instant::now() < deadline + Duration::from_secs(5));
}

#[tokio::test]
async fn waiting_for_what_is_gone_is_no_use() {
    let (base, seen) = recording(404, r#"{"error":"machine not found"}"#).await;
    let deadline = Instant::now() + LIMIT;
    let wait = Wait::for_any([State::Started]);
    let error = client(&base).wait_until("app", "m1", &wait, deadline).await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_older_servers_ok_is_the_one_state_that_was_asked_for() {
    let (base, _) = recording(200, r#"{"ok":true}"#).await;
    let deadline = Instant::now() + LIMIT;
    let wait = Wait::for_any([State::Stopped]);
    let reached = client(&base).wait_until("app", "m1", &wait, deadline).await.unwrap();
    assert_eq!((reached.state, reached.version), (State::Stopped, None));
}
