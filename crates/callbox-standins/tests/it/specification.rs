//! Requests of the client and answers of the stand-in against Fly's own specification
//! (`fly-openapi.json`, an excerpt of what was published on 2026-04-04).
//!
//! Where both differ, the fact sheet was followed; `docs/fly-api.md` says why for each, and
//! [`DIFFERENCES`] is that list for this test: a difference that is in neither fails.

mod schema;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use callbox_fly::wire::{
    CreateApp, CreateMachine, File, GoDuration, Guest, Init, MachineConfig, Restart, RestartPolicy,
    Rootfs, State, StopConfig, UpdateMachine,
};
use callbox_fly::{Client, ListFilter, Stop, Wait};
use callbox_standins::fly::StandIn;
use callbox_standins::fly::backend::{Fake, Program, Times};
use callbox_standins::fly::trouble::{Effect, Preset, Rule};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::schema::Specification;
use crate::api::settings;
use crate::client::{LIMIT, soon};

/// What we say otherwise than the specification, by operation and by what it is.
const DIFFERENCES: &[(&str, &str)] = &[
    // Later specification and fly-go: fly.md section 0.
    ("get /apps/{app_name}/machines", "query metadata.*"),
    ("* Machine", "field version"),
    ("* Machine", "field cordoned"),
    // Docs and fly-go: an envelope around the lease, 201, and the lifetime in the query, too.
    ("get /apps/{app_name}/machines/{machine_id}/lease", "body"),
    ("post /apps/{app_name}/machines/{machine_id}/lease", "body"),
    ("post /apps/{app_name}/machines/{machine_id}/lease", "status 201"),
    ("post /apps/{app_name}/machines/{machine_id}/lease", "query ttl"),
    ("* ErrorResponse", "field message"),
    ("* ErrorResponse", "code"),
    // The docs' samples; the specification only has no body for them.
    ("post /apps", "body"),
    ("delete /apps/{app_name}/machines/{machine_id}", "body"),
    ("delete /apps/{app_name}/machines/{machine_id}/lease", "body"),
    ("post /apps/{app_name}/machines/{machine_id}/start", "body"),
    ("post /apps/{app_name}/machines/{machine_id}/stop", "body"),
    ("post /apps/{app_name}/machines/{machine_id}/suspend", "body"),
    ("post /apps/{app_name}/machines/{machine_id}/restart", "body"),
    ("post /apps/{app_name}/machines/{machine_id}/signal", "body"),
    ("post /apps/{app_name}/machines/{machine_id}/cordon", "body"),
    ("post /apps/{app_name}/machines/{machine_id}/uncordon", "body"),
];

/// Those that were met.
static MET: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

pub fn is_known(operation: &str, what: &str) -> bool {
    let known = DIFFERENCES.iter().position(|known| *known == (operation, what));
    MET.lock().unwrap().extend(known);
    known.is_some()
}

/// One call as it went over the wire.
struct Exchange {
    method: String,
    path: String,
    query: Vec<String>,
    request: Value,
    status: u16,
    answer: Value,
}

type Recorded = Arc<Mutex<Vec<Exchange>>>;

async fn record(recorded: Recorded, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let uri = parts.uri.clone();
    let query = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let query = query.map(|pair| pair.split('=').next().unwrap_or_default().to_owned()).collect();
    let method = parts.method.as_str().to_lowercase();
    let request = serde_json::from_slice(&bytes).unwrap_or_default();
    let answer = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    let (parts, body) = answer.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let answer = serde_json::from_slice(&bytes).unwrap_or_default();
    let (path, status) = (uri.path().to_owned(), parts.status.as_u16());
    recorded.lock().unwrap().push(Exchange { method, path, query, request, status, answer });
    Response::from_parts(parts, Body::from(bytes))
}

/// Everything that can stand in a create.
fn full() -> CreateMachine {
    let text = |text: &str| text.to_owned();
    let config = MachineConfig {
        image: Some(text("parrot")),
        init: Some(Init { cmd: vec![text("python3")], ..Init::default() }),
        env: [(text("A"), text("b"))].into(),
        guest: Some(Guest { cpus: Some(1), memory_mb: Some(512), ..Guest::default() }),
        auto_destroy: Some(false),
        restart: Some(Restart { policy: Some(RestartPolicy::No), max_retries: Some(1) }),
        metadata: [(text("session"), text("1"))].into(),
        stop_config: Some(StopConfig {
            signal: Some(text("SIGTERM")),
            timeout: Some(GoDuration(Duration::from_secs(30))),
        }),
        files: vec![File {
            guest_path: text("/etc/callbox"),
            raw_value: Some(text("YQ==")),
            ..File::default()
        }],
        rootfs: Some(Rootfs { size_gb: Some(9), ..Rootfs::default() }),
        services: vec![json!({"protocol": "tcp", "internal_port": 8080, "autostop": "off"})],
        ..MachineConfig::default()
    };
    CreateMachine {
        name: Some(text("cb-1")),
        region: Some(text("iad,any")),
        config,
        lease_ttl: Some(1),
        skip_launch: Some(false),
        skip_service_registration: Some(true),
        skip_secrets: Some(true),
        min_secrets_version: Some(0),
    }
}

/// Calls everything once and more, so that every shape of request and answer is seen.
async fn call_everything(standin: &StandIn, client: &Client, base: &str) {
    let reach = async |id: &str, state: State| {
        client.wait_until("bots", id, &Wait::for_any([state]), soon()).await.unwrap()
    };
    let machine = client.create("bots", &full(), LIMIT).await.unwrap();
    let (id, nonce) = (machine.id.as_str(), machine.nonce.clone().unwrap());
    client.release_lease("bots", id, &nonce, LIMIT).await.unwrap();
    client.create("bots", &full(), LIMIT).await.unwrap_err();
    let version = reach(id, State::Started).await.version;
    let wait = Wait {
        states: vec![State::Started],
        version,
        from_event_id: Some("0".into()),
        timeout: Some(Duration::from_secs(1)),
    };
    client.wait("bots", id, &wait, LIMIT).await.unwrap();
    let wait = Wait { states: vec![State::Failed], ..wait };
    client.wait("bots", id, &wait, LIMIT).await.unwrap_err();
    client.get("bots", id, LIMIT).await.unwrap();
    let filter = ListFilter {
        region: Some("iad".into()),
        states: vec![State::Started],
        metadata: [("session".to_owned(), "1".to_owned())].into(),
        include_deleted: true,
        ..ListFilter::default()
    };
    assert_eq!(client.list("bots", &filter, LIMIT).await.unwrap().len(), 1);
    let filter = ListFilter { summary: true, ..ListFilter::default() };
    assert_eq!(client.list("bots", &filter, LIMIT).await.unwrap().len(), 1);
    client.set_metadata("bots", id, "a", "b", LIMIT).await.unwrap();
    client.metadata("bots", id, LIMIT).await.unwrap();
    client.remove_metadata("bots", id, "a", LIMIT).await.unwrap();
    client.suspend("bots", id, LIMIT).await.unwrap();
    reach(id, State::Suspended).await;
    client.start("bots", id, LIMIT).await.unwrap();
    reach(id, State::Started).await;
    let lease =
        client.acquire_lease("bots", id, Duration::from_secs(60), None, LIMIT).await.unwrap();
    client.lease("bots", id, LIMIT).await.unwrap();
    client.suspend("bots", id, LIMIT).await.unwrap_err();
    client.release_lease("bots", id, &lease.nonce, LIMIT).await.unwrap();
    let update = UpdateMachine {
        config: full().config,
        current_version: client.get("bots", id, LIMIT).await.unwrap().instance_id,
        skip_launch: Some(false),
        lease_ttl: None,
    };
    client.update("bots", id, &update, None, LIMIT).await.unwrap();
    reach(id, State::Started).await;
    let stop = Stop { signal: Some("SIGTERM".into()), timeout: Some(Duration::from_secs(3)) };
    client.stop("bots", id, &stop, LIMIT).await.unwrap();
    reach(id, State::Stopped).await;
    client.events("bots", id, Some(50), LIMIT).await.unwrap();
    standin.lose_host(id).await;
    client.get("bots", id, LIMIT).await.unwrap();
    client.destroy("bots", id, true, LIMIT).await.unwrap();
    reach(id, State::Destroyed).await;
    let app = CreateApp {
        name: Some("more".into()),
        org_slug: Some("personal".into()),
        network: Some("own".into()),
    };
    client.create_app(&app, LIMIT).await.unwrap();
    client.create_app(&app, LIMIT).await.unwrap_err();
    client.app("more", LIMIT).await.unwrap();
    client.delete_app("more", LIMIT).await.unwrap();
    for preset in [Preset::NoCapacity, Preset::Quota, Preset::ImageMissing, Preset::LeaseHeld] {
        standin.add_trouble(Rule::always(Effect::Refuse { preset }).times(1));
        client.create("bots", &full(), LIMIT).await.unwrap_err();
    }
    call_the_rest(client, base).await;
}

/// What the client has no method for.
async fn call_the_rest(client: &Client, base: &str) {
    let created = client.create("bots", &full(), LIMIT).await.unwrap();
    let machine = format!("/v1/apps/bots/machines/{}", created.id);
    let http = reqwest_like::Http::new(base);
    client.release_lease("bots", &created.id, &created.nonce.unwrap(), LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Started]);
    client.wait_until("bots", &created.id, &wait, soon()).await.unwrap();
    for (method, path, body) in [
        ("GET", "/v1/apps?org_slug=personal".to_owned(), Value::Null),
        ("GET", "/v1/platform/regions".to_owned(), Value::Null),
        (
            "POST",
            "/v1/platform/placements".to_owned(),
            json!({"org_slug": "personal", "region": "lhr,eu", "count": 2}),
        ),
        ("GET", "/v1/orgs/personal/machines?limit=1".to_owned(), Value::Null),
        ("POST", format!("{machine}/cordon"), Value::Null),
        ("POST", format!("{machine}/uncordon"), Value::Null),
        ("GET", format!("{machine}/metadata/session"), Value::Null),
        ("GET", format!("{machine}/metadata/none"), Value::Null),
        ("PUT", format!("{machine}/metadata"), json!({"metadata": {"a": "b"}})),
        (
            "PUT",
            format!("{machine}/metadata"),
            json!({"metadata": {"a": "b"}, "machine_version": "wrong"}),
        ),
        ("POST", format!("{machine}/exec"), json!({"command": ["true"], "timeout": 1})),
        ("POST", format!("{machine}/restart?timeout=1s"), Value::Null),
        ("POST", format!("{machine}/signal"), json!({"signal": "SIGTERM"})),
    ] {
        if path.ends_with("signal") {
            client.wait_until("bots", &created.id, &wait, soon()).await.unwrap();
        }
        http.call(method, &path, body).await;
    }
}

/// A client of bare HTTP for calls that nobody needs a method for.
mod reqwest_like {
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::TokioIo;
    use serde_json::Value;
    use tokio::net::TcpStream;

    pub struct Http(String);

    impl Http {
        pub fn new(base: &str) -> Http {
            Http(base.trim_start_matches("http://").to_owned())
        }

        pub async fn call(&self, method: &str, path: &str, body: Value) {
            let stream = TokioIo::new(TcpStream::connect(&self.0).await.unwrap());
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(stream).await.unwrap();
            let connection = tokio::spawn(connection);
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let request = hyper::Request::builder()
                .method(method)
                .uri(path)
                .header("host", &self.0)
                .header("authorization", "Bearer fm2_test")
                .body(Full::new(axum::body::Bytes::from(body)))
                .unwrap();
            let answer = sender.send_request(request).await.unwrap();
            answer.into_body().collect().await.unwrap();
            connection.abort();
        }
    }
}

#[tokio::test]
async fn requests_and_answers_are_as_specified() {
    let fake = Arc::new(Fake::new(Times::NONE, 7, Program::until_signal()));
    let standin = StandIn::new(settings(callbox_standins::fly::Limits::none()), fake);
    let recorded: Recorded = Arc::default();
    let recording = recorded.clone();
    let router = standin
        .router()
        .layer(from_fn(move |request, next| record(recording.clone(), request, next)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let client = Client::new(&base, &standin.token()).unwrap();
    call_everything(&standin, &client, &base).await;
    serving.abort();

    let specification = Specification::load();
    let mut wrong = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for exchange in recorded.lock().unwrap().iter() {
        let path = exchange.path.strip_prefix("/v1").unwrap();
        let (template, operation) = specification
            .operation(path, &exchange.method)
            .unwrap_or_else(|| panic!("{} {path} is not specified", exchange.method));
        seen.insert(format!("{} {template}", exchange.method));
        specification.check_query(&operation, &exchange.query, &mut wrong);
        specification.check_request(&operation, &exchange.request, &mut wrong);
        specification.check_answer(&operation, exchange.status, &exchange.answer, &mut wrong);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let met = MET.lock().unwrap();
    let unmet: Vec<_> = (0..DIFFERENCES.len()).filter(|number| !met.contains(number)).collect();
    let unmet: Vec<_> = unmet.into_iter().map(|number| DIFFERENCES[number]).collect();
    assert!(unmet.is_empty(), "no differences any more: {unmet:?}");
    let all: BTreeSet<String> = specification.operations().collect();
    let unseen: Vec<&String> = all.difference(&seen).collect();
    assert!(unseen.is_empty(), "never called: {unseen:?}");
}
