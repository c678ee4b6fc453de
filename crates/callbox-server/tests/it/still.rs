//! A dispatcher whose time passes as soon as nobody has anything to do: for what takes minutes.
//! The real router, a store in memory, fakes outside, all in one thread; use with
//! `#[tokio::test(start_paused = true)]`.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use callbox_core::{Session, SessionId, State, Time};
use callbox_machines::{FakeProvider, Provider};
use callbox_protocol::api::SESSION_ID_HEADER;
use callbox_server::{
    api::{self, App},
    clock::Clock,
    config,
    logs::Logs,
    plane::Plane,
    serve::{self, Background},
    store::Store,
};
use callbox_transports::{FakeTransport, SessionTokens};
use http::{Request, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use tower::ServiceExt as _;

const CONFIG: &str = r#"
listen = "127.0.0.1:0"
[bot_defaults]
provider = "fake"
transports = ["fake"]
stop_grace_s = 1
"#;

/// How long something is waited for. It costs nothing.
const LONG: Duration = Duration::from_secs(1200);

/// What outlives a dispatcher.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) provider: Arc<FakeProvider>,
    pub(crate) rooms: Arc<FakeTransport>,
    pub(crate) dir: Arc<TempDir>,
}

impl Outside {
    pub(crate) fn new(store: impl Store + 'static) -> Outside {
        let dir = Arc::new(TempDir::new().unwrap());
        let (provider, rooms) = (Arc::default(), Arc::default());
        Outside { store: Arc::new(store), provider, rooms, dir }
    }
}

/// See the module's documentation.
pub(crate) struct Still {
    pub(crate) plane: Arc<Plane>,
    pub(crate) router: Router,
    _background: Background,
}

impl Still {
    /// With these lines after the usual configuration.
    pub(crate) async fn new(outside: &Outside, bots: &str) -> Still {
        let provider = Arc::clone(&outside.provider);
        Still::with(outside, bots, vec![provider]).await
    }

    pub(crate) async fn with(
        outside: &Outside,
        bots: &str,
        providers: Vec<Arc<dyn Provider>>,
    ) -> Still {
        let plane = Still::plane(outside, bots, providers);
        let _background = serve::begin(&plane).await.unwrap();
        let app = App { plane: Arc::clone(&plane), loopback: true, prometheus: None };
        Still { router: api::router(app), plane, _background }
    }

    /// One that has not begun.
    pub(crate) fn plane(
        outside: &Outside,
        bots: &str,
        providers: Vec<Arc<dyn Provider>>,
    ) -> Arc<Plane> {
        let file = outside.dir.path().join("callbox.toml");
        let data_dir = outside.dir.path();
        std::fs::write(&file, format!("data_dir = {data_dir:?}\n{CONFIG}{bots}")).unwrap();
        let config = config::load(Some(&file)).unwrap().config;
        let begun = tokio::time::Instant::now();
        let clock = Clock::given(move || {
            let micros = i64::try_from(begun.elapsed().as_micros()).unwrap();
            Time::from_micros(1_800_000_000_000_000 + micros)
        });
        let rooms = Arc::clone(&outside.rooms);
        let tokens = SessionTokens::new(vec![7; 32]);
        let store = Arc::clone(&outside.store);
        Plane::new(config, store, providers, vec![rooms], tokens, Logs::nowhere(clock))
    }

    /// Takes no further step, as after a crash.
    pub(crate) async fn crash(self) {
        self.plane.tasks.halt();
        self.plane.tasks.gone().await;
    }

    pub(crate) async fn start(&self, bot: &str) -> SessionId {
        let body = Body::from(json!({ "bot": bot }).to_string());
        let request = Request::post("/start")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let id = answer.headers()[SESSION_ID_HEADER].to_str().unwrap();
        SessionId::parse(id).unwrap()
    }

    /// The session's row as soon as `what` holds for it.
    pub(crate) async fn until(&self, id: SessionId, what: impl Fn(&Session) -> bool) -> Session {
        let mut last = None;
        let looking = async {
            loop {
                let row = self.plane.store.get(id).await.unwrap().unwrap().session;
                if what(&row) {
                    return row;
                }
                last = Some(row);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(LONG, looking).await {
            Ok(session) => session,
            Err(_) => panic!("it did not happen; last seen: {last:#?}"),
        }
    }

    /// The code under which the session ended.
    pub(crate) async fn end(&self, id: SessionId) -> &'static str {
        let ended = self.until(id, |session| matches!(session.state, State::Ended { .. })).await;
        ended.state.why().unwrap().code.as_str()
    }
}
