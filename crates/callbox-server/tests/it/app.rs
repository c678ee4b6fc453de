//! One dispatcher of its own for every test.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use callbox_core::{EventKind, SessionId};
use callbox_machines::{FakeProvider, Provider, Script};
use callbox_protocol::api::Session;
use callbox_server::{
    config,
    keys::{self, KeyKind},
    logs::Logs,
    plane::Plane,
    serve,
};
use callbox_transports::{FakeTransport, SessionTokens, Transport, Webrtc, Websocket};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Handle, sync::oneshot, task::JoinHandle};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// How long a test waits for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(10);

const CONFIG: &str = r#"
listen = "127.0.0.1:0"
[limits]
max_held_bytes = 4096
{limits}
[bot_defaults]
provider = "fake"
stop_grace_s = 0.1
[bots.parrot]
transports = ["websocket", "fake"]
[bots.web]
transports = ["webrtc"]
[bots.small]
max_sessions = 1
[bots.hasty]
[bots.hasty.timeouts]
queued_s = 0.3
start_s = 0.3
ready_s = 0.3
join_s = 0.3
live_s = 0.3
[bots.brief]
[bots.brief.timeouts]
live_s = 1.2
warn_s = 0.7
[bots.tough]
transports = ["fake", "websocket"]
restarts = { most = 2 }
[bots.phoenix]
transports = ["websocket"]
restarts = { most = 1, within_s = 0.001 }
[bots.present]
transports = ["fake"]
ready_when = "room"
[bots.prompt]
transports = ["fake"]
ready_when = "machine"
[bots.lonely]
transports = ["fake"]
[bots.lonely.timeouts]
alone_s = 0.3
[bots.patient]
transports = ["fake"]
[bots.long]
transports = ["fake"]
[bots.long.timeouts]
live_s = 8
warn_s = 4
"#;

/// Sessions that may live at once, where a test does not say.
const HOUSE: &str = "max_sessions = 16";

pub(crate) fn config(limits: &str) -> String {
    CONFIG.replace("{limits}", limits)
}

pub(crate) struct TestApp {
    pub(crate) provider: Arc<FakeProvider>,
    pub(crate) rooms: Arc<FakeTransport>,
    pub(crate) plane: Arc<Plane>,
    pub(crate) public: String,
    pub(crate) private: String,
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
    dir: Option<TempDir>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl TestApp {
    pub(crate) async fn new() -> TestApp {
        TestApp::with(Script::default()).await
    }

    pub(crate) async fn with(script: Script) -> TestApp {
        let dir = TempDir::new().unwrap();
        let provider = Arc::new(FakeProvider::new(script));
        TestApp::on(dir, provider, &Handle::current()).await
    }

    /// With further lines under `[limits]`.
    pub(crate) async fn with_limits(script: Script, limits: &str) -> TestApp {
        let (dir, provider) = (TempDir::new().unwrap(), Arc::new(FakeProvider::new(script)));
        let front = Arc::clone(&provider);
        TestApp::configured(config(limits), dir, provider, front, &Handle::current()).await
    }

    /// With its sessions in the store at this address.
    pub(crate) async fn with_store(address: &str) -> TestApp {
        let (dir, fake) = (TempDir::new().unwrap(), Arc::new(FakeProvider::new(Script::default())));
        let front = Arc::clone(&fake);
        let config = format!("store = {address:?}\n{}", config(HOUSE));
        TestApp::configured(config, dir, fake, front, &Handle::current()).await
    }

    /// With a provider that stands before the fake one.
    pub(crate) async fn behind(front: Arc<dyn Provider>, fake: Arc<FakeProvider>) -> TestApp {
        let dir = TempDir::new().unwrap();
        TestApp::configured(config(HOUSE), dir, fake, front, &Handle::current()).await
    }

    /// On a directory and a provider that were there before; its tasks live on `runtime`.
    pub(crate) async fn on(dir: TempDir, provider: Arc<FakeProvider>, runtime: &Handle) -> TestApp {
        let front = Arc::clone(&provider);
        TestApp::configured(config(HOUSE), dir, provider, front, runtime).await
    }

    pub(crate) async fn configured(
        config: String,
        dir: TempDir,
        provider: Arc<FakeProvider>,
        front: Arc<dyn Provider>,
        runtime: &Handle,
    ) -> TestApp {
        let path = dir.path().to_owned();
        let rooms = Arc::new(FakeTransport::default());
        let rooms2 = Arc::clone(&rooms);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, parts) = oneshot::channel();
        let served = runtime.spawn(async move {
            let plane = plane(&config, &path, front, rooms2).await;
            let key = async |kind| {
                let key = keys::create(&*plane.store, kind, "test", callbox_server::now()).await;
                key.unwrap().1.reveal().to_owned()
            };
            let (public, private) = (key(KeyKind::Public).await, key(KeyKind::Private).await);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let _ = ready.send((Arc::clone(&plane), address, public, private));
            let shutdown = async move {
                let _ = stopped.await;
            };
            serve::run(plane, listener, None, shutdown).await.unwrap();
        });
        let (plane, address, public, private) = parts.await.unwrap();
        // The first test of the process installs it; the others find it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let (dir, stop) = (Some(dir), Some(stop));
        TestApp { provider, rooms, plane, public, private, address, client, dir, stop, served }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// Gives up everything but what a crash leaves: the directory and the machines.
    pub(crate) fn crash(mut self) -> (TempDir, Arc<FakeProvider>) {
        self.served.abort();
        (self.dir.take().unwrap(), Arc::clone(&self.provider))
    }

    /// Begins to shut down as a signal does.
    pub(crate) fn shut_down(mut self) -> TestApp {
        drop(self.stop.take());
        self
    }

    /// Shuts down as a signal does, and checks that nothing is left.
    pub(crate) async fn finish(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(Duration::from_secs(30), &mut self.served).await.unwrap().unwrap();
        assert_eq!(self.provider.names(), Vec::<String>::new(), "machines are left");
        assert!(self.rooms.rooms().is_empty(), "rooms are left");
        assert!(self.plane.store.living().await.unwrap().is_empty(), "sessions are left");
    }

    pub(crate) fn request(&self, method: Method, path: &str, key: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address)).bearer_auth(key)
    }

    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path, &self.private).send().await.unwrap()
    }

    /// Starts and returns the session's id and the answer.
    pub(crate) async fn start(&self, body: Value) -> (String, Value) {
        let answer = self.start_raw(body).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let id = answer.headers()["x-callbox-session-id"].to_str().unwrap().to_owned();
        (id, answer.json().await.unwrap())
    }

    pub(crate) async fn start_raw(&self, body: Value) -> Response {
        self.request(Method::POST, "/start", &self.public).json(&body).send().await.unwrap()
    }

    /// Tells a session's driver what no fake tells by itself.
    pub(crate) fn tell(&self, id: &str, kind: EventKind) {
        self.plane.handle(SessionId::parse(id).unwrap()).unwrap().tell(kind);
    }

    /// Waits until a machine's line is in its session's log.
    pub(crate) async fn until_logged(&self, id: &str, line: &str) {
        let id = SessionId::parse(id).unwrap();
        let mut changes = self.plane.logs.follow(id).unwrap();
        let written = async {
            while !self.plane.logs.read(id, 0).unwrap().0.iter().any(|entry| entry.text == line) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(SOON, written).await.unwrap();
    }

    pub(crate) async fn wait(&self, id: &str, moment: &str) -> Session {
        let path = format!("/v1/sessions/{id}?wait={moment}&timeout_ms=10000");
        let answer = self.get(&path).await;
        assert_eq!(answer.status(), StatusCode::OK, "waiting for {moment}");
        answer.json().await.unwrap()
    }

    pub(crate) async fn connect(&self, join: &Value) -> Socket {
        let url = format!(
            "{}?token={}",
            join["wsUrl"].as_str().unwrap(),
            join["token"].as_str().unwrap()
        );
        connect_async(url).await.unwrap().0
    }

    /// The session as soon as `what` holds for it.
    pub(crate) async fn until(&self, id: &str, what: impl Fn(&Session) -> bool) -> Session {
        let mut last = None;
        let polling = async {
            loop {
                let session: Session =
                    self.get(&format!("/v1/sessions/{id}")).await.json().await.unwrap();
                if what(&session) {
                    return session;
                }
                last = Some(session);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(SOON, polling).await {
            Ok(session) => session,
            Err(_) => panic!("it did not happen; last seen: {last:#?}"),
        }
    }
}

/// The parts of a dispatcher, in this directory.
pub(crate) async fn plane(
    config: &str,
    dir: &Path,
    provider: Arc<dyn Provider>,
    rooms: Arc<FakeTransport>,
) -> Arc<Plane> {
    let file = dir.join("callbox.toml");
    // Of its own: what another dispatcher has in the default one would be swept.
    std::fs::write(&file, format!("data_dir = {dir:?}\n{config}")).unwrap();
    let config = config::load(Some(&file)).unwrap().config;
    let logs = Logs::open(dir.join("logs"), config.max_log_bytes).unwrap();
    let store = config.store.open(dir).await.unwrap();
    let tokens = SessionTokens::new(store.deployment().await.unwrap().secret);
    let websocket: Arc<dyn Transport> = Arc::new(Websocket::new(tokens.clone()));
    let webrtc: Arc<dyn Transport> = Arc::new(Webrtc::new(Vec::new(), ""));
    Plane::new(config, store, vec![provider], vec![websocket, webrtc, rooms], tokens, logs)
}

/// The code under which a session ended.
pub(crate) fn code(session: &Session) -> &str {
    session.end_reason.as_ref().map_or("", |why| &why.code)
}
