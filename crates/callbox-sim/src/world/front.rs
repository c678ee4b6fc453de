//! A dispatcher's life, and its way to the world outside: every call travels there and back, and
//! the dispatcher may die before it, or when the answer is there.

use std::{
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use callbox_server::plane::Plane;
use tokio::{
    sync::{oneshot, watch},
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::World;

/// One process of a dispatcher, from its start to its end.
pub struct Life {
    /// Where it lives.
    pub world: Arc<World>,
    /// Which of the replicas it is.
    pub replica: usize,
    /// The host that it is on, by number.
    pub host: u64,
    /// As it is called in the trace.
    pub name: String,
    plane: OnceLock<Weak<Plane>>,
    alive: AtomicBool,
    died: watch::Sender<bool>,
    cut_off_until: Mutex<Instant>,
}

/// A request that is on its way. Whoever hangs up may call it back.
struct OnItsWay(Option<AbortHandle>);

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Life {
    /// Born.
    pub fn new(world: &Arc<World>, replica: usize, host: u64, number: u32) -> Arc<Life> {
        Arc::new(Life {
            world: Arc::clone(world),
            replica,
            host,
            name: format!("d{replica}.{number}"),
            plane: OnceLock::new(),
            alive: AtomicBool::new(true),
            died: watch::Sender::new(false),
            cut_off_until: Mutex::new(Instant::now()),
        })
    }

    /// What is to be halted when it dies.
    pub fn runs(&self, plane: &Arc<Plane>) {
        let _ = self.plane.set(Arc::downgrade(plane));
    }

    /// Whether it has not died.
    pub fn alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Ends it where it stands.
    pub fn die(&self, what: &str) {
        if self.alive.swap(false, Ordering::Relaxed) {
            self.world.note(what, || self.name.clone());
            self.world.inner().doors[self.replica] = None;
            self.world.upset();
            if let Some(plane) = self.plane.get().and_then(Weak::upgrade) {
                plane.tasks.halt();
            }
            self.died.send_replace(true);
        }
    }

    /// Resolves when it has died.
    pub async fn death(&self) {
        let _ = self.died.subscribe().wait_for(|died| *died).await;
    }

    /// The store answers this dispatcher nothing for so long.
    pub fn cut_off(&self, span: Duration) {
        self.world.note("store.cut-off", || format!("{} for {span:?}", self.name));
        let end = Instant::now() + span;
        *self.cut_off_until.lock().expect("no panic while held") = end;
        self.world.upset_until(end);
    }

    /// Until when the store answers nothing.
    pub fn store_away_until(&self) -> Instant {
        let own = *self.cut_off_until.lock().expect("no panic while held");
        own.max(self.world.inner().store_away_until)
    }

    /// It may die here.
    pub async fn crash_point(&self, when: &str, what: &str) {
        if !self.alive() {
            return std::future::pending().await;
        }
        if self.world.happens(self.world.weather.crash) {
            self.die(&format!("crash.{when}.{what}"));
            std::future::pending::<()>().await;
        }
    }

    /// A call to a provider or a transport. Some are never answered, whatever became of them.
    pub async fn call_vendor<T, F>(
        self: &Arc<Self>,
        what: &'static str,
        typical_ms: f64,
        effect: impl FnOnce(bool) -> F + Send + 'static,
    ) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let hangs = self.world.happens(self.world.weather.hangs);
        if hangs && self.world.happens(0.5) {
            self.world.inner().count(&format!("fault.no-answer.{what}"));
            return std::future::pending().await;
        }
        let answer = self.call(what, typical_ms, effect).await;
        if hangs {
            self.world.inner().count(&format!("fault.no-answer-to-what-happened.{what}"));
            return std::future::pending().await;
        }
        answer
    }

    /// One call to the outside, that typically takes so long. What it does there is `effect`,
    /// which happens in one moment, and is told whether anybody still waits for it.
    pub async fn call<T, F>(
        self: &Arc<Self>,
        what: &'static str,
        typical_ms: f64,
        effect: impl FnOnce(bool) -> F + Send + 'static,
    ) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.crash_point("before", what).await;
        let (there, back) =
            (self.world.latency(typical_ms / 2.0), self.world.latency(typical_ms / 2.0));
        let (answer, answered) = oneshot::channel();
        let task = tokio::spawn(async move {
            sleep(there).await;
            let waited_for = !answer.is_closed();
            let _ = answer.send(effect(waited_for).await);
        });
        let arrives_anyway = self.world.happens(0.5);
        let mut way = OnItsWay((!arrives_anyway).then(|| task.abort_handle()));
        let answer = answered.await;
        way.0 = None;
        sleep(back).await;
        self.crash_point("after", what).await;
        match answer {
            Ok(answer) => answer,
            // The runtime is going down.
            Err(_) => std::future::pending().await,
        }
    }
}
