//! Dispatchers: the real ones, on the world's store, provider and transport, with clocks that are
//! a little wrong. Each dies, comes back, and is replaced in order.

use std::{path::Path, sync::Arc, time::Duration};

use axum::Router;
use callbox_core::Time;
use callbox_server::{
    api::{self, App},
    clock::Clock,
    config::{self, Config, OnShutdown},
    logs::Logs,
    plane::Plane,
    serve,
};
use callbox_transports::SessionTokens;
use tokio::time::{sleep, timeout};

use crate::{
    dice::Dice,
    world::{
        World, database::SimStore, front::Life, machines::DEAD_MAN, provider::SimProvider,
        rooms::SimTransport,
    },
};

/// Where a dispatcher is asked.
#[derive(Clone)]
pub struct Door {
    /// The host that it is on.
    pub host: u64,
    /// The dispatcher.
    pub plane: Arc<Plane>,
    /// Its routes.
    pub router: Router,
}

/// How sessions are configured: deadlines of seconds, so that each is met.
const CONFIG: &str = r#"
listen = "127.0.0.1:0"
[limits]
max_sessions = 30
max_queued = 10
[bot_defaults]
provider = "sim"
transports = ["sim"]
stop_grace_s = 1
[bot_defaults.timeouts]
queued_s = 20
start_s = 40
ready_s = 20
join_s = 20
live_s = 60
alone_s = 10
warn_s = 10
silent_s = 15
ending_s = 20
[bots.plain]
[bots.tough]
restarts = { most = 2, within_s = 300 }
[bots.seen]
ready_when = "room"
restarts = { most = 1, within_s = 60 }
[bots.quick]
ready_when = "machine"
[bots.small]
max_sessions = 3
"#;

/// The longest that a session can last here, from its acceptance: every deadline met at its end.
pub const LONGEST: Duration = Duration::from_secs(20 + 40 + 20 + 20 + 60 + 3 * 60);

/// The bots that there are.
pub const BOTS: &[&str] = &["plain", "tough", "seen", "quick", "small"];

/// One replica, through all of its lives.
pub struct Keeper {
    world: Arc<World>,
    replica: usize,
    dice: Dice,
    config: Config,
    dir: std::path::PathBuf,
    host: u64,
    /// By how much its clock is wrong, in microseconds, and how fast that grows.
    skew: i64,
    drift: f64,
}

impl Keeper {
    /// Of this replica; what it keeps on disk (who it is) goes under `dir`.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn new(world: &Arc<World>, replica: usize, dir: &Path) -> anyhow::Result<Keeper> {
        let mut dice = world.inner().dice.fork();
        let file = dir.join("callbox.toml");
        std::fs::write(&file, CONFIG)?;
        let config = config::load(Some(&file))?.config;
        anyhow::ensure!(config.orphan_after == DEAD_MAN, "machines live alone as long as is said");
        let most = i64::try_from(world.weather.skew.as_micros())?;
        let skew = (most as f64 * (2.0 * dice.part() - 1.0)) as i64;
        let drift = if dice.happens(0.3) { 0.006 * (dice.part() - 0.5) } else { 0.0 };
        let (world, dir) = (Arc::clone(world), dir.to_owned());
        Ok(Keeper { world, replica, dice, config, dir, host: 0, skew, drift })
    }

    /// Lives, dies and comes back, until the world ends.
    pub async fn run(mut self) {
        let mut number = 0;
        loop {
            if number == 0 || !self.dice.happens(self.world.weather.same_place) {
                self.move_house();
            }
            number += 1;
            let life = Life::new(&self.world, self.replica, self.host, number);
            self.live(&life).await;
            let absence = self.absence();
            self.world.note("dispatcher.away", || format!("{} for {absence:?}", life.name));
            sleep(absence).await;
        }
    }

    /// A new host, with nothing on it.
    fn move_house(&mut self) {
        let mut inner = self.world.inner();
        let before = std::mem::replace(&mut self.host, inner.dice.number(1, u64::from(u32::MAX)));
        drop(inner);
        if self.world.weather.hosted {
            self.world.lose_host(before);
        }
        let dir = self.dir.join(format!("host-{}", self.host));
        // Who it is would be drawn from the kernel, which no seed moves.
        let id = format!("{:016x}\n", self.host);
        let made =
            std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join("replica"), id));
        made.expect("a temporary directory takes small files");
        self.config.data_dir = dir;
    }

    fn absence(&mut self) -> Duration {
        if self.world.happens(self.world.weather.long_absence) {
            self.dice.between(100_000, 260_000)
        } else {
            self.dice.between(500, 8_000)
        }
    }

    fn build(&mut self, life: &Arc<Life>) -> Arc<Plane> {
        let (world, skew, drift) = (Arc::clone(&self.world), self.skew, self.drift);
        let clock = Clock::given(move || {
            let wrong = skew + (world.age().as_micros() as f64 * drift) as i64;
            Time::from_micros(world.now().as_micros() + wrong)
        });
        let mut config = self.config.clone();
        config.on_shutdown =
            if self.dice.happens(0.6) { OnShutdown::Leave } else { OnShutdown::End };
        let plane = Plane::new(
            config,
            Arc::new(SimStore::new(life)),
            vec![Arc::new(SimProvider(Arc::clone(life)))],
            vec![Arc::new(SimTransport(Arc::clone(life)))],
            SessionTokens::new(vec![7; 32]),
            Logs::nowhere(clock),
        );
        life.runs(&plane);
        plane
    }

    /// One life, to its end.
    async fn live(&mut self, life: &Arc<Life>) {
        let plane = self.build(life);
        self.world.note("dispatcher.starts", || life.name.clone());
        let beginning = {
            let plane = Arc::clone(&plane);
            async move { serve::begin(&plane).await }
        };
        let background = match plane.spawn(beginning).await {
            Some(Ok(background)) => background,
            // Without its store it says so and ends; whoever runs it starts it again.
            Some(Err(_)) => return life.die("dispatcher.cannot-begin"),
            None => return,
        };
        if !life.alive() {
            // It died when all was said and done.
            return;
        }
        let app = App { plane: Arc::clone(&plane), loopback: true, prometheus: None };
        let door = Door { host: self.host, plane: Arc::clone(&plane), router: api::router(app) };
        self.world.inner().doors[self.replica] = Some(door);
        self.world.upset();
        self.world
            .note("dispatcher.serves", || format!("{} {:?}", life.name, plane.config.on_shutdown));
        tokio::select! {
            () = life.death() => {}
            () = self.orders(life) => self.replace(life, plane, background).await,
        }
    }

    /// Resolves when somebody wants to replace it in order. Cuts it off from the store meanwhile.
    async fn orders(&mut self, life: &Arc<Life>) {
        let weather = self.world.weather.clone();
        loop {
            sleep(Duration::from_secs(10)).await;
            if self.world.happens(weather.store_away / 12.0) {
                let span = self.dice.between(1_000, 25_000);
                life.cut_off(span);
            }
            if self.world.happens(weather.deploys / 6.0) {
                return;
            }
        }
    }

    async fn replace(
        &mut self,
        life: &Arc<Life>,
        plane: Arc<Plane>,
        background: serve::Background,
    ) {
        let end = plane.config.on_shutdown == OnShutdown::End;
        let what = if end { "deploy.end" } else { "deploy.leave" };
        self.world.note(what, || life.name.clone());
        if end {
            // Whatever it accepts until its last moment, too.
            self.world.inner().ending.insert(life.name.clone());
        }
        let ending = plane.spawn({
            let plane = Arc::clone(&plane);
            async move { serve::end(&plane, background).await }
        });
        // As long as an init system waits before it kills.
        let ended = timeout(Duration::from_secs(60), ending).await;
        if matches!(ended, Ok(Some(()))) {
            life.die("deploy.done");
        } else {
            life.die("deploy.killed");
        }
    }
}
