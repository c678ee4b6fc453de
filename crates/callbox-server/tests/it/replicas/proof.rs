//! The proof: two dispatchers on one PostgreSQL, killed and cut off from it in turn, under a load
//! of starts. Nothing leaks, nothing doubles, nothing is lost.
//!
//! `CALLBOX_TEST_ROUNDS` and `CALLBOX_TEST_SEED` make it longer or another one; with `--nocapture`
//! the figures are printed as one line of JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use callbox_core::{SessionId, State};
use callbox_machines::{FakeProvider, Script};
use callbox_server::store::{Filter, Postgres, Store};
use serde::Serialize;
use tempfile::TempDir;

use super::{
    house::{Dispatcher, House, Open, TAKEN_OVER},
    load::Load,
    proxy::{Proxy, Way},
};
use crate::store::database::Database;

const CLIENTS: usize = 24;
/// A replica's death is noticed and its sessions taken over within this.
const PROMISED: Duration = Duration::from_secs(10);
/// What a machine that is busy with other tests may add to that.
const GRACE: Duration = Duration::from_secs(10);

/// What becomes of one of the two in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Killed, and back when the other one has its sessions.
    Killed,
    /// Its connections to the database break, and no new ones are made.
    CutOff,
    /// Nothing comes through to the database or back, and nothing breaks.
    Silenced,
    /// Killed, and back at once: it goes on with its own.
    KilledAndBack,
}

#[derive(Debug, Default, Serialize)]
struct Figures {
    seed: u64,
    rounds: usize,
    acknowledged: usize,
    unacknowledged: usize,
    asked_again: u64,
    machines_made: usize,
    taken_over: usize,
    /// The longest from a death or a cut until all sessions of that replica had another.
    longest_take_over_s: f64,
    leaked_machines: usize,
    leaked_rooms: usize,
    doubled: usize,
    double_purchases: usize,
    lost: usize,
    ended_without_reason: usize,
    ended_for_another_reason: BTreeMap<String, usize>,
}

/// A dispatcher and its own way to the database.
struct Replica {
    dispatcher: Option<Dispatcher>,
    proxy: Proxy,
}

struct Stage {
    house: House,
    database: Database,
    load: Arc<Load>,
}

impl Stage {
    /// In its own runtime it opens its own way to the database: all of it dies with it.
    async fn begin(&self, proxy: &Proxy, dir: TempDir) -> Dispatcher {
        let options = self.database.options();
        let options = options.host("127.0.0.1").port(proxy.address.port());
        let opening =
            async move { Arc::new(Postgres::open(options).await.unwrap()) as Arc<dyn Store> };
        self.house.dispatcher_on(Box::pin(opening), dir).await
    }

    async fn replica(&self) -> Replica {
        let options = self.database.options();
        let proxy = Proxy::to(format!("{}:{}", options.get_host(), options.get_port())).await;
        let dispatcher = Some(self.begin(&proxy, TempDir::new().unwrap()).await);
        Replica { dispatcher, proxy }
    }

    /// One round; tells how long the take-over took, and of how many sessions.
    async fn round(&self, victim: &mut Replica, trouble: Trouble) -> (Duration, usize) {
        let id = victim.dispatcher.as_ref().unwrap().plane().replicas.id().to_owned();
        let mut theirs = BTreeSet::new();
        let many = async {
            // It must have something to lose.
            while theirs.len() < 6 {
                theirs = self.house.store.driven(&id).await.unwrap().into_iter().collect();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(TAKEN_OVER, many).await.expect("clients come to it");
        let began = Instant::now();
        let dir = match trouble {
            Trouble::Killed | Trouble::KilledAndBack => {
                Some(victim.dispatcher.take().unwrap().kill().await)
            }
            Trouble::CutOff => {
                victim.proxy.is(Way::Broken);
                None
            }
            Trouble::Silenced => {
                victim.proxy.is(Way::Silent);
                None
            }
        };
        if trouble == Trouble::KilledAndBack {
            victim.dispatcher = Some(self.begin(&victim.proxy, dir.unwrap()).await);
            self.addressed(victim, &id);
            return (Duration::ZERO, 0);
        }
        let count = theirs.len();
        self.gone_from(&id).await;
        let took = began.elapsed();
        // Clients go on for a while before it comes back.
        tokio::time::sleep(Duration::from_millis(self.load.draw() % 3000)).await;
        match dir {
            Some(dir) => victim.dispatcher = Some(self.begin(&victim.proxy, dir).await),
            None => victim.proxy.is(Way::Open),
        }
        self.addressed(victim, &id);
        // It must see that what it drove is another's now, and take new ones.
        let plane = victim.dispatcher.as_ref().unwrap().plane();
        let back = async {
            while plane.store.ping().await.is_err() || plane.replicas.others().is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(TAKEN_OVER, back).await.expect("it comes back");
        (took, count)
    }

    /// Waits until no living session has this replica as its driver.
    async fn gone_from(&self, id: &str) {
        let gone = async {
            while !self.house.store.driven(id).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let limit = PROMISED + GRACE;
        tokio::time::timeout(limit, gone).await.expect("its sessions are taken over in time");
    }

    /// Clients know where a dispatcher that came back is; it may have another port.
    fn addressed(&self, replica: &Replica, id: &str) {
        let dispatcher = replica.dispatcher.as_ref().unwrap();
        assert_eq!(dispatcher.plane().replicas.id(), id, "who comes back is who went");
        let mut addresses = self.load.addresses.lock().unwrap();
        let address = dispatcher.address.to_string();
        if !addresses.contains(&address) {
            addresses.push(address);
            let oldest = addresses.len().saturating_sub(2);
            addresses.drain(..oldest);
        }
    }
}

/// Looks for sessions that have two machines at once, until it is stopped.
async fn watch_for_doubles(provider: Arc<FakeProvider>, stop: Arc<AtomicBool>) -> BTreeSet<String> {
    let mut doubled = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let mut seen = BTreeSet::new();
        for name in provider.names() {
            // `cb-<session>-<incarnation>`
            let session = name.rsplit_once('-').unwrap().0.to_owned();
            if !seen.insert(session.clone()) {
                doubled.insert(session);
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    doubled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaks_doubles_or_is_lost_when_replicas_die_or_are_cut_off() {
    let Some(database) = Database::fresh().await else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let rounds = number("CALLBOX_TEST_ROUNDS").unwrap_or(4);
    let seed = number("CALLBOX_TEST_SEED").unwrap_or(1);
    let options = database.options();
    let open: Open = Box::new(move || {
        let options = options.clone();
        Box::pin(async move { Arc::new(Postgres::open(options).await.unwrap()) as Arc<dyn Store> })
    });
    let script = Script { start_takes: Duration::from_millis(150), ..Script::default() };
    let house = House::on(open, script, None).await;
    let load = Arc::new(Load {
        addresses: Mutex::default(),
        provider: Arc::clone(&house.provider),
        private: house.private.clone(),
        http: house.client.clone(),
        stop: AtomicBool::new(false),
        random: AtomicU64::new(seed),
        told: Mutex::default(),
    });
    let stage = Stage { house, database, load: Arc::clone(&load) };
    let mut replicas = [stage.replica().await, stage.replica().await];
    for replica in &replicas {
        let dispatcher = replica.dispatcher.as_ref().unwrap();
        stage.addressed(replica, dispatcher.plane().replicas.id());
        dispatcher.knows(1).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let doubles = watch_for_doubles(Arc::clone(&stage.house.provider), Arc::clone(&stop));
    let doubles = tokio::spawn(doubles);
    let clients: Vec<_> =
        (0..CLIENTS).map(|name| tokio::spawn(Arc::clone(&load).client(name))).collect();

    let mut figures = Figures { seed, rounds: rounds as usize, ..Figures::default() };
    let troubles = [Trouble::Killed, Trouble::CutOff, Trouble::Silenced, Trouble::KilledAndBack];
    for round in 0..rounds as usize {
        let victim = usize::try_from(load.draw() % 2).unwrap();
        let trouble = troubles[round % troubles.len()];
        let (took, count) = stage.round(&mut replicas[victim], trouble).await;
        println!(
            "round {round}: {victim} {trouble:?}, {count} sessions, {:.1} s",
            took.as_secs_f64()
        );
        figures.taken_over += count;
        figures.longest_take_over_s = figures.longest_take_over_s.max(took.as_secs_f64());
    }
    load.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    settle(&stage).await;
    stop.store(true, Ordering::Relaxed);
    figures.doubled = doubles.await.unwrap().len();
    count(&stage, &mut figures).await;
    println!("{}", serde_json::to_string(&figures).unwrap());
    judge(&figures);
}

/// Waits until nothing is left, or nothing goes any more: what is left then is a figure.
async fn settle(stage: &Stage) {
    // A machine that nobody owns is found by a sweep, which comes every minute.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(75) {
        let living = stage.house.store.living().await.unwrap();
        let (machines, rooms) = (stage.house.provider.names(), stage.house.rooms.rooms());
        if living.is_empty() && machines.is_empty() && rooms.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn count(stage: &Stage, figures: &mut Figures) {
    let house = &stage.house;
    figures.leaked_machines = house.provider.names().len();
    figures.leaked_rooms = house.rooms.rooms().len();
    let made = house.provider.made_by_name();
    figures.machines_made = made.values().sum();
    // Whatever died: a machine that was made is adopted, and one that was ended is not made again.
    figures.double_purchases = made.values().filter(|times| **times > 1).count();
    for id in count_told(&stage.load, figures) {
        let row = house.store.get(SessionId::parse(&id).unwrap()).await.unwrap();
        match row.map(|row| row.session.state) {
            Some(State::Ended { .. }) => {}
            Some(_) => figures.ended_without_reason += 1,
            None => figures.lost += 1,
        }
    }
    // Rows that nobody was told of are double purchases: each key has one.
    let filter = Filter { limit: 100_000, ..Filter::default() };
    let rows = house.store.list(&filter).await.unwrap().len();
    let keys = figures.acknowledged + figures.unacknowledged;
    figures.double_purchases += rows.saturating_sub(keys);
}

/// What clients were told; gives the ids of their sessions.
fn count_told(load: &Load, figures: &mut Figures) -> Vec<String> {
    let told = load.told.lock().unwrap();
    for told in told.values() {
        figures.asked_again += told.asked_again;
        figures.lost += usize::from(told.lost);
        figures.double_purchases += told.ids.len().saturating_sub(1);
        match told.ids.is_empty() {
            true => figures.unacknowledged += 1,
            false => figures.acknowledged += 1,
        }
        if let Some(code) = &told.code
            && !matches!(code.as_str(), "stopped" | "bot-finished")
        {
            *figures.ended_for_another_reason.entry(code.clone()).or_default() += 1;
        }
    }
    told.values().flat_map(|told| told.ids.clone()).collect()
}

fn judge(figures: &Figures) {
    assert!(figures.acknowledged > 100, "an empty run proves nothing: {figures:#?}");
    assert!(figures.asked_again > 0, "the trouble was noticed by nobody: {figures:#?}");
    let bad = [
        figures.unacknowledged,
        figures.leaked_machines,
        figures.leaked_rooms,
        figures.doubled,
        figures.double_purchases,
        figures.lost,
        figures.ended_without_reason,
        figures.ended_for_another_reason.values().sum(),
    ];
    assert!(bad.iter().all(|count| *count == 0), "{figures:#?}");
}
