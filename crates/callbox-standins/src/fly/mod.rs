//! A stand-in for Fly's Machines API.
//!
//! ```text
//!  request ─▶ api::gate ── count, token, rate limit, trouble ─▶ handler
//!                                                                  │ asks (asks.rs)
//!                                                                  ▼
//!             waiters ◀── watch ── World: records of apps and machines, one lock
//!                                                                  ▲
//!                      life.rs, one task per machine: does what the state calls for
//!                                                                  │
//!                                                    Backend: what really runs
//! ```
//!
//! A handler changes a machine's state under the lock or refuses; it never does the work. The
//! machine's task looks at the state, has the backend do what it calls for, and enters the next
//! one; when somebody changes the state meanwhile, the work is dropped and the task looks again.
//! So nothing is lost between the two, and a machine never stays in a passing state by itself.

mod api;
mod asks;
pub mod backend;
mod calls;
mod check;
mod clock;
mod ids;
mod life;
mod place;
mod rates;
mod record;
mod refusal;
mod settings;
pub mod trouble;
mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use callbox_fly::Token;
use callbox_fly::wire::{Machine, State};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::backend::{Backend, Exit};
pub use self::calls::{Calls, Counted};
pub use self::settings::{Grant, Limits, RegionLimits, Settings};
use self::trouble::{Rule, Troubles};
use self::world::World;

/// The stand-in. Cheap to clone; when the last clone is dropped, its machines' tasks end.
#[derive(Clone)]
pub struct StandIn {
    world: Arc<World>,
    backend: Arc<dyn Backend>,
    lives: Arc<Mutex<JoinSet<()>>>,
}

impl StandIn {
    /// One with `settings`, whose machines `backend` runs. Must be made in a Tokio runtime,
    /// whose clock is the stand-in's: in paused time it is paused, too.
    pub fn new(settings: Settings, backend: Arc<dyn Backend>) -> StandIn {
        StandIn { world: Arc::new(World::new(settings)), backend, lives: Arc::default() }
    }

    /// The first of its tokens, which may do everything.
    pub fn token(&self) -> Token {
        self.world.settings().tokens[0].token.clone()
    }

    /// The API, for tests that need no socket. A connection cannot be cut here: where one would
    /// be, the answer is an empty 500.
    pub fn router(&self) -> Router {
        api::router(self.clone())
    }

    /// Serves the API until the future is dropped.
    pub async fn serve(&self, listener: TcpListener) -> std::io::Result<()> {
        crate::serve::serve(listener, self.router()).await
    }

    /// Adds a trouble; gives the number by which it is taken away again.
    pub fn add_trouble(&self, rule: Rule) -> u64 {
        self.world.lock().troubles.add(rule)
    }

    /// Takes one away; whether it was there.
    pub fn remove_trouble(&self, id: u64) -> bool {
        self.world.lock().troubles.remove(id)
    }

    /// Takes all away. What they did to machines stays.
    pub fn clear_troubles(&self) {
        self.world.lock().troubles = Troubles::default();
    }

    /// All troubles and how often each struck.
    pub fn troubles(&self) -> Vec<trouble::Listed> {
        self.world.lock().troubles.list()
    }

    /// Requests by action since the start or the last reset.
    pub fn calls(&self) -> Calls {
        self.world.lock().calls.clone()
    }

    /// Begins counting anew.
    pub fn reset_calls(&self) {
        self.world.lock().calls = Calls::default();
    }

    /// Other limits from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.world.lock().set_limits(limits);
    }

    /// All machines that are not destroyed, with their apps: the truth, whatever lists say.
    pub fn machines(&self) -> Vec<(String, Machine)> {
        let inner = self.world.lock();
        let living = inner.machines.values().filter(|one| one.state != State::Destroyed);
        living.map(|one| (one.app.clone(), one.shown())).collect()
    }

    /// Ends a machine's main process, as if by itself; whether one ran.
    pub async fn exit(&self, id: &str, exit: Exit) -> bool {
        self.backend.end(id, exit).await
    }

    /// Loses the host that a machine is on; whether there is such a machine.
    pub async fn lose_host(&self, id: &str) -> bool {
        let lost = self.world.lock().lose_host(id);
        if lost {
            self.backend.kill(id).await;
        }
        lost
    }

    /// Destroys every machine and waits until nothing of them is left, at most `limit`.
    /// Whether nothing is left.
    pub async fn close(&self, limit: Duration) -> bool {
        self.world.lock().destroy_all();
        let deadline = tokio::time::Instant::now() + limit;
        // Not in the head of the loop, where the lock would be held until its end.
        let watches = self.world.lock().watches();
        for mut watch in watches {
            let gone = watch.wait_for(|seen| seen.state == State::Destroyed);
            if tokio::time::timeout_at(deadline, gone).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Begins a machine's life.
    fn live(&self, id: String) {
        let mut lives = self.lives.lock().expect("no panic while held");
        while lives.try_join_next().is_some() {}
        lives.spawn(life::live(Arc::clone(&self.world), Arc::clone(&self.backend), id));
    }
}
