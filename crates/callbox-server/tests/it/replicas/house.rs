//! Several dispatchers on one store and one world, each of which can be killed.

use std::{future::Future, net::SocketAddr, path::Path, pin::Pin, sync::Arc, time::Duration};

use callbox_machines::{FakeProvider, Provider, Script};
use callbox_protocol::api::Session;
use callbox_server::{
    config,
    keys::{self, KeyKind},
    logs::Logs,
    plane::Plane,
    serve,
    store::{Sqlite, Store},
};
use callbox_transports::{FakeTransport, SessionTokens, Transport, Websocket};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinHandle,
};

use crate::app;

/// How long a test waits for a take-over, on a machine that is busy with other tests.
pub(crate) const TAKEN_OVER: Duration = Duration::from_secs(30);

type Opening = Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>>;
/// How a dispatcher gets its own way to the store.
pub(crate) type Open = Box<dyn Fn() -> Opening + Send + Sync>;

/// What is there whoever dies: machines, rooms, the store, clients and their keys.
pub(crate) struct House {
    pub(crate) provider: Arc<FakeProvider>,
    pub(crate) rooms: Arc<FakeTransport>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) client: reqwest::Client,
    pub(crate) public: String,
    pub(crate) private: String,
    open: Open,
    /// What the dispatchers of this house are told under `[limits]`.
    pub(crate) limits: String,
    _dir: Option<TempDir>,
}

impl House {
    /// On one SQLite file: all in one process, so it may be.
    pub(crate) async fn on_sqlite(script: Script) -> House {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("callbox.db");
        let open: Open = Box::new(move || {
            let file = file.clone();
            Box::pin(async move { Arc::new(Sqlite::open(&file).await.unwrap()) as Arc<dyn Store> })
        });
        House::on(open, script, Some(dir)).await
    }

    pub(crate) async fn on(open: Open, script: Script, dir: Option<TempDir>) -> House {
        let store = open().await;
        let key = async |kind| {
            let key = keys::create(&*store, kind, "test", callbox_server::now()).await;
            key.unwrap().1.reveal().to_owned()
        };
        let (public, private) = (key(KeyKind::Public).await, key(KeyKind::Private).await);
        // The first test of the process installs it; the others find it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        House {
            provider: Arc::new(FakeProvider::new(script)),
            rooms: Arc::default(),
            store,
            client: reqwest::Client::new(),
            public,
            private,
            open,
            limits: "max_sessions = 1000".into(),
            _dir: dir,
        }
    }

    /// A new dispatcher, with its own way to the store.
    pub(crate) async fn dispatcher(&self) -> Dispatcher {
        self.dispatcher_on((self.open)(), TempDir::new().unwrap()).await
    }

    /// A dispatcher on a data directory that may have been another's.
    pub(crate) async fn dispatcher_on(&self, store: Opening, dir: TempDir) -> Dispatcher {
        let threads = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = threads.unwrap();
        let (front, rooms) = (Arc::clone(&self.provider), Arc::clone(&self.rooms));
        let text = app::config(&self.limits);
        let path = dir.path().to_owned();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, parts) = oneshot::channel();
        let served = runtime.spawn(async move {
            let plane = plane(&text, &path, front, rooms, store.await).await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _ = ready.send((Arc::clone(&plane), listener.local_addr().unwrap()));
            let shutdown = async move {
                let _ = stopped.await;
            };
            serve::run(plane, listener, None, shutdown).await.unwrap();
        });
        let (plane, address) = parts.await.unwrap();
        let (client, private) = (self.client.clone(), self.private.clone());
        let (runtime, stop) = (Some(runtime), Some(stop));
        let public = self.public.clone();
        let (plane, dir) = (Some(plane), Some(dir));
        Dispatcher { plane, address, client, public, private, runtime, stop, served, dir }
    }

    /// Waits until nothing of any session is left.
    pub(crate) async fn is_empty(&self) {
        let empty = async {
            loop {
                let living = self.store.living().await.unwrap();
                let (machines, rooms) = (self.provider.names(), self.rooms.rooms());
                if living.is_empty() && machines.is_empty() && rooms.is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(TAKEN_OVER, empty).await.is_err() {
            let living = self.store.living().await.unwrap();
            let (machines, rooms) = (self.provider.names(), self.rooms.rooms());
            panic!("left: sessions {living:?}, machines {machines:?}, rooms {rooms:?}");
        }
    }
}

/// One dispatcher, with a runtime of its own.
pub(crate) struct Dispatcher {
    plane: Option<Arc<Plane>>,
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
    public: String,
    private: String,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    dir: Option<TempDir>,
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Dispatcher {
    /// It is no more, in the middle of whatever it did; its data directory stays.
    pub(crate) async fn kill(mut self) -> TempDir {
        let runtime = self.runtime.take();
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
        // With the last of it, its connections to the store.
        self.plane = None;
        self.dir.take().unwrap()
    }

    /// Shuts down as a signal does.
    pub(crate) async fn shut_down(mut self) -> TempDir {
        drop(self.stop.take());
        tokio::time::timeout(TAKEN_OVER, &mut self.served).await.unwrap().unwrap();
        self.kill().await
    }

    pub(crate) fn plane(&self) -> &Arc<Plane> {
        self.plane.as_ref().unwrap()
    }

    pub(crate) fn request(&self, method: Method, path: &str, key: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address)).bearer_auth(key)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path, &self.private).send().await.unwrap()
    }

    pub(crate) async fn end(&self, id: &str) -> StatusCode {
        let path = format!("/v1/sessions/{id}");
        self.request(Method::DELETE, &path, &self.private).send().await.unwrap().status()
    }

    /// Starts and returns the session's id and the answer.
    pub(crate) async fn start(&self, body: Value, key: Option<&str>) -> (String, Value) {
        let mut request = self.request(Method::POST, "/start", &self.public).json(&body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let id = answer.headers()["x-callbox-session-id"].to_str().unwrap().to_owned();
        (id, answer.json().await.unwrap())
    }

    pub(crate) async fn wait(&self, id: &str, moment: &str) -> Session {
        let path = format!("/v1/sessions/{id}?wait={moment}&timeout_ms=30000");
        let answer = self.get(&path).await;
        assert_eq!(answer.status(), StatusCode::OK, "waiting for {moment}");
        answer.json().await.unwrap()
    }

    /// Waits until it drives this session.
    pub(crate) async fn drives(&self, id: &str) {
        let id = callbox_core::SessionId::parse(id).unwrap();
        let driven = async {
            while self.plane().handle(id).is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(TAKEN_OVER, driven).await.expect("it takes the session over");
    }

    /// Waits until it knows of so many others.
    pub(crate) async fn knows(&self, others: usize) {
        let known = async {
            while self.plane().replicas.others().len() != others {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(TAKEN_OVER, known).await.expect("it sees the others");
    }
}

async fn plane(
    text: &str,
    dir: &Path,
    provider: Arc<dyn Provider>,
    rooms: Arc<FakeTransport>,
    store: Arc<dyn Store>,
) -> Arc<Plane> {
    let file = dir.join("callbox.toml");
    std::fs::write(&file, format!("data_dir = {dir:?}\n{text}")).unwrap();
    let config = config::load(Some(&file)).unwrap().config;
    let logs = Logs::open(dir.join("logs"), config.max_log_bytes).unwrap();
    let tokens = SessionTokens::new(store.deployment().await.unwrap().secret);
    let websocket: Arc<dyn Transport> = Arc::new(Websocket::new(tokens.clone()));
    Plane::new(config, store, vec![provider], vec![websocket, rooms], tokens, logs)
}
