//! A stand-in for Daily's REST API: rooms, meeting tokens, presence, webhooks, their limits and
//! errors, and troubles. There is no audio: who joins is a name on a list.
//!
//! ```text
//!  request ─▶ api::gate ── key, rate limit, trouble ─▶ handler ─▶ World: rooms and people
//!                                                                     │ what happened
//!                                                                     ▼
//!                                                 hooks: signed, to whoever set a webhook up
//! ```

mod api;
mod hooks;
mod people;
mod rates;
mod token;
mod trouble;
mod world;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::Router;
use tokio::net::TcpListener;

use self::world::World;
pub use self::{
    trouble::{Effect, Trouble, When},
    world::Person,
};

/// What a stand-in is like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The key that opens it, and that tokens are signed with.
    pub api_key: String,
    /// `<domain>.daily.co`, for addresses of rooms that lead nowhere.
    pub domain: String,
    /// Its id, which tokens have.
    pub domain_id: String,
    /// How old what `GET /presence` tells may be.
    pub stale: Duration,
    /// Whether calls are refused that come too often.
    pub limits: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            api_key: "callbox-standin-key".into(),
            domain: "callbox-standin".into(),
            domain_id: "00000000-0000-4000-8000-00000000da11".into(),
            stale: Duration::from_secs(15),
            limits: true,
        }
    }
}

/// The stand-in. Cheap to clone.
#[derive(Clone)]
pub struct StandIn {
    settings: Arc<Settings>,
    world: Arc<Mutex<World>>,
    hooks: hooks::Hooks,
}

impl StandIn {
    /// One with these settings. Must be made in a Tokio runtime, which sends its webhooks.
    pub fn new(settings: Settings) -> StandIn {
        let hooks = hooks::Hooks::begin();
        let world = Arc::new(Mutex::new(World::new(&settings, hooks.clone())));
        StandIn { settings: Arc::new(settings), world, hooks }
    }

    /// The key that opens it.
    pub fn api_key(&self) -> &str {
        &self.settings.api_key
    }

    /// The API, under `/v1`.
    pub fn router(&self) -> Router {
        api::router(self.clone())
    }

    /// Serves the API until the future is dropped.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(&self, listener: TcpListener) -> std::io::Result<()> {
        crate::serve::serve(listener, self.router()).await
    }

    /// Names of all rooms: the truth.
    pub fn rooms(&self) -> Vec<String> {
        self.world().rooms().keys().cloned().collect()
    }

    /// The properties of a room.
    pub fn properties(&self, room: &str) -> Option<serde_json::Value> {
        self.world().rooms().get(room).map(|room| room.properties.clone())
    }

    /// Everybody in a room.
    pub fn people(&self, room: &str) -> Vec<Person> {
        self.world().rooms().get(room).map(|room| room.people.clone()).unwrap_or_default()
    }

    /// Somebody comes into a room with a token, as daily-js or daily-python would; gives the
    /// participant's id.
    ///
    /// # Errors
    /// What the one who joins is told.
    pub fn join(&self, room: &str, token: &str) -> Result<String, String> {
        self.world().join(room, token)
    }

    /// The participant leaves; whether it was there.
    pub fn leave(&self, room: &str, id: &str) -> bool {
        self.world().leave(room, id)
    }

    /// Removes a room behind everybody's back.
    pub fn lose_room(&self, room: &str) -> bool {
        self.world().remove(room)
    }

    /// Adds a trouble.
    pub fn add_trouble(&self, trouble: Trouble) {
        self.world().troubles.push(trouble);
    }

    /// Takes all troubles away.
    pub fn clear_troubles(&self) {
        self.world().troubles.clear();
    }

    /// Calls by what they do (`POST /rooms`), refused ones too.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.world().calls.clone()
    }

    /// With which status each webhook was answered, in order.
    pub fn webhook_answers(&self) -> Vec<u16> {
        self.hooks.answers()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic while held")
    }
}
