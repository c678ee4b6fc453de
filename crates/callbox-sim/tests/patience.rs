//! How long who is waited for. Time stands still here until everybody waits, so minutes cost
//! nothing: no sockets, no logs, and the store in memory.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use axum::{body::Body, http::Request};
use callbox_core::{EndCode, Fault, Session, SessionId, StateKind, Time, machine_name};
use callbox_machines::{FakeProvider, Listed, MachineSpec, Made, Provider as _};
use callbox_server::{
    api::{self, App},
    clock::Clock,
    config,
    logs::Logs,
    plane::Plane,
    serve::{self, Background},
    store::{Memory, Store as _},
};
use callbox_transports::{FakeTransport, Presence, Script as Rooms, SessionTokens};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

const CONFIG: &str = r#"
listen = "127.0.0.1:0"
[limits]
orphan_after_s = 120
[bot_defaults]
provider = "fake"
transports = ["fake"]
[bot_defaults.timeouts]
silent_s = 5
[bots.parrot]
"#;

/// What outlives a dispatcher.
struct House {
    dir: TempDir,
    store: Memory,
    provider: Arc<FakeProvider>,
    rooms: Arc<FakeTransport>,
    began: Instant,
}

/// One dispatcher in it.
struct Life {
    plane: Arc<Plane>,
    _background: Background,
}

impl House {
    fn new() -> House {
        let presence = Some(Presence { bot: true, clients: 1 });
        House {
            dir: TempDir::new().unwrap(),
            store: Memory::default(),
            provider: Arc::default(),
            rooms: Arc::new(FakeTransport::new(Rooms { presence, ..Rooms::default() })),
            began: Instant::now(),
        }
    }

    async fn serve(&self) -> Life {
        let file = self.dir.path().join("callbox.toml");
        std::fs::write(&file, format!("data_dir = {:?}\n{CONFIG}", self.dir.path())).unwrap();
        let began = self.began;
        let clock = Clock::given(move || now(began));
        let plane = Plane::new(
            config::load(Some(&file)).unwrap().config,
            Arc::new(self.store.clone()),
            vec![Arc::clone(&self.provider) as _],
            vec![Arc::clone(&self.rooms) as _],
            SessionTokens::new(vec![7; 32]),
            Logs::nowhere(clock),
        );
        let _background = serve::begin(&plane).await.unwrap();
        Life { plane, _background }
    }

    async fn session(&self, id: SessionId) -> Session {
        self.store.get(id).await.unwrap().unwrap().session
    }

    /// A call that goes on, whose dispatcher died just now.
    async fn orphaned_call(&self) -> SessionId {
        let life = self.serve().await;
        let app = App { plane: Arc::clone(&life.plane), loopback: true, prometheus: None };
        let request = Request::post("/start")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Body::from(r#"{ "bot": "parrot" }"#))
            .unwrap();
        let answer = api::router(app).oneshot(request).await.unwrap();
        let id = answer.headers()["x-callbox-session-id"].to_str().unwrap();
        let id = SessionId::parse(id).unwrap();
        life.plane
            .handle(id)
            .unwrap()
            .until(|session| session.state.kind() == StateKind::Live)
            .await
            .unwrap();
        life.plane.tasks.halt();
        life.plane.tasks.gone().await;
        id
    }

    /// How long after now the session begins to end.
    async fn until_it_ends(&self, id: SessionId) -> Duration {
        let began = Instant::now();
        while self.session(id).await.state.why().is_none() {
            assert!(began.elapsed() < Duration::from_secs(1000), "it goes on for ever");
            sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    }

    /// Until nothing is left of the machine, from now on.
    async fn until_it_is_swept(&self) -> Duration {
        let began = Instant::now();
        while !self.provider.names().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(1000), "it stays for ever");
            sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    }

    async fn stray_machine(&self, plane: &Plane) -> String {
        let name =
            machine_name(SessionId::parse("0f0f0f0f-0f0f-4f0f-8f0f-0f0f0f0f0f0f").unwrap(), 1);
        let bot = Arc::clone(&plane.bot("parrot").unwrap().machine);
        let (version, made) = (None, Made::default());
        let spec = MachineSpec { name: name.clone(), incarnation: 1, bot, version, made };
        self.provider.ensure(&spec).await.unwrap();
        name
    }
}

fn now(began: Instant) -> Time {
    Time::from_micros(1_800_000_000_000_000).after(began.elapsed())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn away() -> Option<Fault> {
    Some(Fault::unavailable("the provider is away"))
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_on_while_its_provider_cannot_say_where_its_machine_is() {
    let house = House::new();
    let id = house.orphaned_call().await;
    let agent = house.provider.agent(&house.session(id).await.machine_name().unwrap()).unwrap();
    house.provider.set(|script| script.connect_fails = away());
    let life = house.serve().await;
    sleep(seconds(30)).await;
    let handle = life.plane.handle(id).unwrap();
    assert!(handle.link.borrow().is_none(), "nobody reaches it");
    house.provider.set(|script| script.connect_fails = None);
    tokio::time::timeout(seconds(6), handle.agent()).await.unwrap().unwrap();
    assert_eq!(house.session(id).await.state.kind(), StateKind::Live);
    assert_eq!((house.provider.made(), agent.seen().connections), (1, 2), "the same machine");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_nobody_can_have_spoken_to_for_so_long_is_lost() {
    let house = House::new();
    let id = house.orphaned_call().await;
    house.provider.set(|script| script.connect_fails = away());
    let _life = house.serve().await;
    let took = house.until_it_ends(id).await;
    // Its own time, what it may take to end itself, and a last pause.
    assert!(took >= seconds(130) && took < seconds(136), "{took:?}");
    let why = house.session(id).await.state.why().cloned().unwrap();
    assert_eq!((why.code, &*why.detail), (EndCode::MachineLost, "the provider is away"));
}

#[tokio::test(start_paused = true)]
async fn one_that_gives_no_answer_at_all_is_asked_again() {
    let house = House::new();
    let id = house.orphaned_call().await;
    house.provider.set(|script| script.connect_silent = true);
    let life = house.serve().await;
    sleep(seconds(70)).await;
    house.provider.set(|script| script.connect_silent = false);
    let handle = life.plane.handle(id).unwrap();
    tokio::time::timeout(seconds(26), handle.agent()).await.unwrap().unwrap();
    assert_eq!(house.session(id).await.state.kind(), StateKind::Live);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_gone_is_lost_at_once() {
    let house = House::new();
    let id = house.orphaned_call().await;
    house.provider.kill(&house.session(id).await.machine_name().unwrap());
    let _life = house.serve().await;
    let took = house.until_it_ends(id).await;
    assert!(took < seconds(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_gave_no_list_is_asked_again_soon() {
    let house = House::new();
    house.provider.set(|script| script.list_fails = away());
    let life = house.serve().await;
    house.stray_machine(&life.plane).await;
    // Asked at 0, 2, 6 and 14 s; at 30 s next.
    sleep(seconds(15)).await;
    house.provider.set(|script| script.list_fails = None);
    let took = house.until_it_is_swept().await;
    assert!(took < seconds(16), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_young_is_looked_at_again_soon() {
    let house = House::new();
    let life = house.serve().await;
    // After the sweep at the start: the next one finds it, and it is 26 s old then.
    sleep(seconds(34)).await;
    let name = house.stray_machine(&life.plane).await;
    let made_at = Some(now(house.began));
    house.provider.lists_only(vec![Listed { made_at, ..Listed::here(name) }]);
    let took = house.until_it_is_swept().await;
    // Looked at after 26, 28 and 32 s.
    assert!(took >= seconds(30) && took < seconds(33), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_left_to_do_the_sweep_comes_every_minute() {
    let house = House::new();
    let life = house.serve().await;
    sleep(seconds(1)).await;
    house.stray_machine(&life.plane).await;
    let took = house.until_it_is_swept().await;
    assert!(took > seconds(58) && took < seconds(60), "{took:?}");
}
