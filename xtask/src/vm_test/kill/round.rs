//! The rounds: sessions, a death, and what is left.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    super::scene::{
        api::PATIENCE,
        caller::{self, Events, How, Line, Outcome, Phase, Plan},
        dispatcher::{Dispatcher, Home},
        host::{Leak, Looker},
        settle::{until_nothing_is_left, what_stays},
        watch::Watch,
    },
    control,
    random::Random,
    tally::Tally,
};

/// A call that is heard so long after a restart went on.
const MOMENT: Duration = Duration::from_millis(500);

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Dispatcher,
    /// Told to leave its calls to the next one, from a new file.
    Upgrade,
    Machine,
    Relay,
}

/// One deck after the other is shuffled and played.
const DECK: [Death; 8] = [
    Death::Dispatcher,
    Death::Dispatcher,
    Death::Dispatcher,
    Death::Dispatcher,
    Death::Dispatcher,
    Death::Upgrade,
    Death::Machine,
    Death::Relay,
];

/// A session in the hands of a client.
struct Client {
    line: Arc<Line>,
    thread: JoinHandle<anyhow::Result<Outcome>>,
}

/// A dispatcher in the place of another one.
struct Restart {
    at: Instant,
    /// Ends when the new one has served for a moment.
    settled: JoinHandle<()>,
}

/// What is done in a round.
struct Drawn {
    /// How each is used, after how long it begins, and whether it is ended by request. The first
    /// is the one that the death is aimed at.
    clients: Vec<(How, Duration, bool)>,
    moment: Duration,
    /// Of which the moment is a part.
    part: Duration,
    /// How long there is no dispatcher.
    away: Duration,
    /// How long the next one lives, if it dies as well.
    young: Option<Duration>,
}

pub struct Rounds<'a> {
    home: &'a Home,
    dispatcher: Dispatcher,
    looker: Looker,
    events: Arc<Events>,
    random: Random,
    tally: Tally,
    /// The call that stands through all rounds, unless what it stands on is killed.
    standing: Option<Client>,
    /// How long starts and ends took.
    starts: Vec<Duration>,
    ends: Vec<Duration>,
    /// How long requests for a start took.
    requests: Vec<Duration>,
}

impl Rounds<'_> {
    pub fn run(home: &Home, seed: u64, n: u16) -> anyhow::Result<(Tally, Duration)> {
        let dispatcher = Dispatcher::start(home, "127.0.0.1:0")?;
        dispatcher.wait_until_ready()?;
        let began = Instant::now();
        let mut rounds = Rounds {
            home,
            dispatcher,
            looker: Looker::new(&home.path),
            events: Arc::default(),
            random: Random::new(seed),
            tally: Tally::default(),
            standing: None,
            starts: Vec::new(),
            requests: Vec::new(),
            ends: vec![Duration::from_millis(500)],
        };
        let watch = Watch::begin(&home.path);
        rounds.stand("0")?;
        let mut deck = Vec::new();
        for number in 1..=n {
            if deck.is_empty() {
                deck.extend(DECK);
                rounds.random.shuffle(&mut deck);
            }
            let death = deck.pop().expect("it was filled");
            let round = rounds.round(number, death);
            round.with_context(|| format!("round {number} ({death:?})"))?;
        }
        rounds.finish()?;
        let mut tally = rounds.tally;
        let two = watch.end().into_iter().map(|id| (id, "it had two machines at once".to_owned()));
        tally.doubled.extend(two);
        tally.most = rounds.looker.most;
        Ok((tally, began.elapsed()))
    }

    /// A call that stands, if there is none. The first time, it is waited for: how long it takes
    /// says where deaths may fall.
    fn stand(&mut self, number: &str) -> anyhow::Result<()> {
        if let Some(over) = self.standing.take_if(|call| call.line.phase() == Phase::Over) {
            self.settle(over)?;
        }
        if self.standing.is_none() {
            let how = How::UntilTold;
            let after = Duration::ZERO;
            self.standing = Some(self.client(&format!("{number}-s"), how, after, false));
        }
        let began = Instant::now();
        while self.starts.is_empty() && began.elapsed() < PATIENCE {
            let standing = self.standing.as_ref().expect("just begun");
            self.starts.extend(standing.line.answered.get());
            if !self.starts.is_empty() {
                self.requests.extend(standing.line.request_took.get());
            }
            anyhow::ensure!(!standing.thread.is_finished(), "the first call ended by itself");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn client(&self, key: &str, how: How, after: Duration, delete: bool) -> Client {
        let line = Arc::<Line>::default();
        let plan = Plan { key: format!("kill-{key}"), after, how, delete };
        let (api, events, its) =
            (self.dispatcher.api.clone(), Arc::clone(&self.events), Arc::clone(&line));
        let thread = std::thread::spawn(move || caller::live(&api, &events, &its, &plan));
        Client { line, thread }
    }

    fn settle(&mut self, client: Client) -> anyhow::Result<()> {
        let outcome = client.thread.join().expect("it does not panic");
        let id = client.line.id.get().cloned().unwrap_or_default();
        self.starts.extend(client.line.answered.get());
        self.requests.extend(client.line.request_took.get());
        self.ends.extend(client.line.end_took.get());
        match outcome {
            Ok(outcome) => {
                let victims = self.events.victims.lock().expect("nobody panics with it");
                let victim = victims.contains(&outcome.id);
                drop(victims);
                self.tally.note(outcome, victim);
            }
            Err(error) => {
                self.tally.acknowledged.extend((!id.is_empty()).then(|| id.clone()));
                self.tally.failed.push((id, format!("{error:#}")));
            }
        }
        Ok(())
    }

    fn round(&mut self, number: u16, death: Death) -> anyhow::Result<()> {
        self.stand(&number.to_string())?;
        // For the records of machines: whose is what.
        self.looker.look();
        let drawn = self.draw();
        let begin = |(nth, (how, after, delete)): (usize, &(How, Duration, bool))| {
            self.client(&format!("{number}-{nth}"), *how, *after, *delete)
        };
        let clients: Vec<Client> = drawn.clients.iter().enumerate().map(begin).collect();
        std::thread::sleep(drawn.moment);
        let phase = clients[0].line.phase().name();
        let restarted = self.strike(death, phase, &drawn)?;
        eprintln!(
            "   round {number}: {death:?} died at {} of {} ms, while: {phase}",
            drawn.moment.as_millis(),
            drawn.part.as_millis()
        );
        let left = self.until_nothing_is_left(&format!("round {number}, after {death:?} died"))?;
        if let Some(Restart { at, settled }) = restarted {
            self.tally.clean.push(left.saturating_duration_since(at));
            settled.join().expect("it does not panic");
        }
        for client in clients {
            self.settle(client)?;
        }
        self.until_nothing_is_left(&format!("the end of round {number}"))?;
        self.tally.rounds += 1;
        Ok(())
    }

    fn draw(&mut self) -> Drawn {
        let random = &mut self.random;
        let talk = Duration::from_secs_f64(0.2 + random.unit() * 1.3);
        let aimed = (How::Call(talk), Duration::ZERO, random.below(2) == 0);
        let other = match random.below(3) {
            0 => How::NeverJoined(talk.mul_f64(random.unit())),
            _ => How::Call(talk.mul_f64(random.unit())),
        };
        let mut clients = vec![aimed, (other, talk.mul_f64(random.unit()), random.below(2) == 0)];
        let mut part = median(&self.starts) + talk + median(&self.ends);
        // The request and the way in are short, and what is written down first matters most
        // there: some deaths are aimed at that, with more who come in.
        if random.below(4) == 0 {
            part = median(&self.requests) * 2;
            clients.truncate(1);
            for _ in 0..4 {
                let how = How::NeverJoined(talk.mul_f64(random.unit()));
                clients.push((how, part.mul_f64(random.unit()), true));
            }
        }
        Drawn {
            clients,
            moment: part.mul_f64(random.unit()),
            part,
            away: Duration::from_secs_f64(random.unit()),
            // Whoever takes up what is left may die over it, too.
            young: (random.below(3) == 0)
                .then(|| (median(&self.tally.serving) * 2).mul_f64(random.unit())),
        }
    }

    /// When it was started again, if it was the dispatcher.
    fn strike(
        &mut self,
        death: Death,
        phase: &'static str,
        drawn: &Drawn,
    ) -> anyhow::Result<Option<Restart>> {
        let who = match death {
            Death::Dispatcher => {
                *self.tally.phases.entry(phase).or_default() += 1;
                "dispatcher"
            }
            Death::Upgrade => "dispatcher-upgraded",
            Death::Machine if self.kill_machine() => "machine",
            Death::Relay if self.kill_relay() => "relay",
            Death::Machine | Death::Relay => "nobody-was-there",
        };
        *self.tally.deaths.entry(who).or_default() += 1;
        match death {
            Death::Dispatcher => self.restart(Signal::KILL, drawn.away, drawn.young).map(Some),
            Death::Upgrade => {
                self.home.install()?;
                self.restart(Signal::TERM, Duration::ZERO, None).map(Some)
            }
            Death::Machine | Death::Relay => Ok(None),
        }
    }

    fn restart(
        &mut self,
        signal: Signal,
        away: Duration,
        young: Option<Duration>,
    ) -> anyhow::Result<Restart> {
        let address = self.dispatcher.api.address.clone();
        self.events.window.fetch_add(1, Ordering::AcqRel);
        self.dispatcher.end(signal)?;
        std::thread::sleep(away);
        if let Some(after) = young {
            eprintln!("     and the next one after {} ms", after.as_millis());
            Dispatcher::die_young(self.home, &address, after)?;
            *self.tally.deaths.entry("dispatcher-starting").or_default() += 1;
        }
        let restarted = Instant::now();
        self.dispatcher = Dispatcher::start(self.home, &address)?;
        self.tally.serving.push(self.dispatcher.serving_after);
        let events = Arc::clone(&self.events);
        let settled = std::thread::spawn(move || {
            std::thread::sleep(MOMENT);
            events.window.fetch_add(1, Ordering::AcqRel);
        });
        Ok(Restart { at: restarted, settled })
    }

    fn kill_machine(&mut self) -> bool {
        let seen = self.looker.look();
        let all = seen.machine_pids();
        if all.is_empty() {
            return false;
        }
        let pid = all[self.random.below(all.len())];
        self.victim(seen.session_of_process(pid));
        kill(pid);
        // A reserve may have been given to a session just now.
        let now = self.looker.look().session_of_process(pid);
        self.victim(now);
        true
    }

    fn kill_relay(&mut self) -> bool {
        let seen = self.looker.look();
        let all = seen.relays();
        if all.is_empty() {
            return false;
        }
        let (pid, session) = all[self.random.below(all.len())].clone();
        self.victim(Some(session));
        kill(pid);
        true
    }

    fn victim(&self, session: Option<String>) {
        self.events.victims.lock().expect("nobody panics with it").extend(session);
    }

    /// Waits until everything has an owner, and notes what has none after all that time. Tells
    /// when it was so.
    fn until_nothing_is_left(&mut self, when: &str) -> anyhow::Result<Instant> {
        let known: BTreeSet<Leak> =
            self.tally.leaked.iter().map(|(_, leak)| leak.clone()).collect();
        let settled =
            until_nothing_is_left(&mut self.looker, &self.dispatcher, |leak| known.contains(leak));
        let (at, leaks) = settled?;
        self.leaked(when, leaks);
        Ok(at)
    }

    /// Each is named once: it would be found again in every round.
    fn leaked(&mut self, when: &str, leaks: Vec<Leak>) {
        for leak in leaks {
            if !self.is_known(&leak) {
                self.tally.leaked.push((when.to_owned(), leak));
            }
        }
    }

    fn is_known(&self, leak: &Leak) -> bool {
        self.tally.leaked.iter().any(|(_, known)| known == leak)
    }

    /// The last call ends, the dispatcher too, and the host is as it was.
    fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(standing) = self.standing.take() {
            standing.line.hang_up.store(true, Ordering::Release);
            self.settle(standing)?;
        }
        self.until_nothing_is_left("the end")?;
        let known = self.dispatcher.api.sessions(true)?;
        let lost: BTreeSet<String> = self.tally.acknowledged.difference(&known).cloned().collect();
        self.tally.lost.extend(lost);
        let strangers = known.difference(&self.tally.acknowledged);
        let bought = strangers.map(|id| (id.clone(), "nobody was given it".to_owned()));
        self.tally.doubled.extend(bought.collect::<Vec<_>>());
        self.dispatcher.end(Signal::TERM)?;
        let leaks = what_stays(&mut self.looker);
        self.leaked("after the last dispatcher", leaks);
        for found in self.home.sweep(&["--dry-run"])? {
            let name = format!("{} {}", found["kind"], found["name"]);
            self.leaked("after the last dispatcher", vec![Leak { kind: "swept", name }]);
        }
        if !self.tally.leaked.is_empty() {
            self.home.sweep(&[])?;
        }
        self.tally.overlooked = control::overlooked(&mut self.looker, &self.home.path)?;
        self.looker.remove_hierarchies();
        Ok(())
    }
}

fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn median(of: &[Duration]) -> Duration {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
