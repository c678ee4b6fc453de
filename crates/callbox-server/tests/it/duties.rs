//! A provider that does not give way at once, or panics: what its duties make of it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
    mpsc,
};

use async_trait::async_trait;
use callbox_core::Fault;
use callbox_link::Link;
use callbox_machines::{
    Admission, BotVersion, Claims, FakeProvider, Listed, MachineSpec, Progress, Provider,
    StartFault, Started,
};
use serde_json::json;
use tokio::sync::watch;

use crate::app::{SOON, TestApp, code};

/// The fake provider, behind what one that does real work may do.
struct Front {
    fake: Arc<FakeProvider>,
    /// `ensure` blocks its thread until this says something, and makes the machine then, without
    /// an await between: no abort stops it.
    blocked_until: Option<Mutex<mpsc::Receiver<()>>>,
    blocks: watch::Sender<bool>,
    destroyed_while_blocked: AtomicBool,
    /// `shed` chooses, and then waits while this is so.
    shed_held: watch::Sender<bool>,
    sheds: watch::Sender<bool>,
    /// So many calls panic before one does not.
    panics: AtomicU32,
}

impl Front {
    fn new(
        blocked_until: Option<mpsc::Receiver<()>>,
        panics: u32,
    ) -> (Arc<Front>, Arc<dyn Provider>) {
        let front = Arc::new(Front {
            fake: Arc::default(),
            blocked_until: blocked_until.map(Mutex::new),
            blocks: watch::Sender::new(false),
            destroyed_while_blocked: AtomicBool::new(false),
            shed_held: watch::Sender::new(false),
            sheds: watch::Sender::new(false),
            panics: AtomicU32::new(panics),
        });
        let provider = Arc::clone(&front);
        (front, provider)
    }

    fn maybe_panic(&self) {
        let less = |left: u32| left.checked_sub(1);
        let left = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        assert!(left.is_err(), "told to panic");
    }
}

#[async_trait]
impl Provider for Front {
    fn name(&self) -> &'static str {
        self.fake.name()
    }

    async fn prepare(&self, bot: &BotVersion, progress: &dyn Progress) -> Result<(), StartFault> {
        self.fake.prepare(bot, progress).await
    }

    async fn ensure(&self, spec: &MachineSpec) -> Result<Started, StartFault> {
        self.maybe_panic();
        if let Some(released) = &self.blocked_until {
            self.blocks.send_replace(true);
            let started = tokio::task::block_in_place(|| {
                released.lock().unwrap().recv_timeout(SOON).expect("the test releases it");
                tokio::runtime::Handle::current().block_on(self.fake.ensure(spec))
            });
            self.blocks.send_replace(false);
            return started;
        }
        self.fake.ensure(spec).await
    }

    fn admit(&self, next: &MachineSpec, claimed: &Claims) -> Result<Admission, Fault> {
        self.fake.admit(next, claimed)
    }

    async fn shed(&self, next: &MachineSpec, claimed: &Claims) -> Result<bool, Fault> {
        let done = self.fake.shed(next, claimed).await;
        let mut shed_held = self.shed_held.subscribe();
        self.sheds.send_replace(true);
        shed_held.wait_for(|held| !*held).await.unwrap();
        done
    }

    async fn connect(&self, name: &str) -> Result<Link, Fault> {
        self.fake.connect(name).await
    }

    async fn destroy(&self, name: &str) -> Result<(), Fault> {
        self.maybe_panic();
        self.destroyed_while_blocked.fetch_or(*self.blocks.borrow(), Ordering::SeqCst);
        self.fake.destroy(name).await
    }

    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        self.fake.list().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_machine_is_destroyed_only_when_its_start_is_really_over() {
    let (release, released) = mpsc::channel();
    let (front, provider) = Front::new(Some(released), 0);
    let app = TestApp::behind(provider, Arc::clone(&front.fake)).await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    let socket = app.connect(&join).await;
    front.blocks.subscribe().wait_for(|blocks| *blocks).await.unwrap();
    drop(socket);
    app.until(&id, |session| session.end_reason.is_some()).await;
    // Its start is aborted by now, and goes on all the same.
    release.send(()).unwrap();
    assert_eq!(code(&app.wait(&id, "ended").await), "client-left");
    front.blocks.subscribe().wait_for(|blocks| !*blocks).await.unwrap();
    assert_eq!(front.fake.made(), 1, "it was made after the hang-up");
    assert!(!front.destroyed_while_blocked.load(Ordering::SeqCst));
    assert_eq!(front.fake.names(), Vec::<String>::new(), "it is left over");
    app.finish().await;
}

#[tokio::test]
async fn a_duty_that_panics_is_begun_again() {
    let (front, provider) = Front::new(None, 1);
    let app = TestApp::behind(provider, Arc::clone(&front.fake)).await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    app.wait(&id, "ready").await;
    front.panics.store(1, Ordering::SeqCst);
    app.request(reqwest::Method::DELETE, &format!("/v1/sessions/{id}"), &app.private)
        .send()
        .await
        .unwrap();
    app.wait(&id, "ended").await;
    app.finish().await;
}

#[tokio::test]
async fn who_has_a_machine_in_reserve_does_not_wait_while_another_is_given_up() {
    let (front, provider) = Front::new(None, 0);
    front.fake.set(|script| (script.room, script.reserve_for_others) = (Some(1), 1));
    front.shed_held.send_replace(true);
    let app = TestApp::behind(provider, Arc::clone(&front.fake)).await;
    let (first, _) = app.start(json!({ "bot": "parrot" })).await;
    front.sheds.subscribe().wait_for(|sheds| *sheds).await.unwrap();
    front.fake.set(|script| (script.room, script.reserve) = (Some(2), 1));
    let (second, _) = app.start(json!({ "bot": "parrot" })).await;
    app.wait(&second, "ready").await;
    assert!(app.until(&first, |_| true).await.moments.admitted.is_none(), "its room is not free");
    front.shed_held.send_replace(false);
    app.wait(&first, "ready").await;
    app.finish().await;
}
