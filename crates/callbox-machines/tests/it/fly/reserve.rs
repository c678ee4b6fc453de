//! Machines in reserve at Fly: each used once, by one session of one replica, and gone at the end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use callbox_core::{SessionId, machine_name, of_reserve_name};
use callbox_fly::{Action, wire::State};
use callbox_machines::{
    Admission, BotMachine, BotVersion, Claims, Cloud, Fly, Listed, MachineSpec, Made,
    Provider as _, ReserveKind, ReserveSize,
};
use callbox_standins::fly::{
    Limits,
    trouble::{Effect, Preset, Rule, When},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::Cloudy;

const KINDS: [ReserveKind; 3] =
    [ReserveKind::Stopped, ReserveKind::Suspended, ReserveKind::Started];

fn bot(kind: ReserveKind, size: usize) -> Arc<BotMachine> {
    let mut bot = (*crate::bot()).clone();
    bot.image = "registry.fly.io/bots@sha256:00".into();
    bot.cloud = Cloud::default();
    bot.reserve = ReserveSize { min: size, max: size, kind, ..ReserveSize::NONE };
    Arc::new(bot)
}

fn spec(bot: &Arc<BotMachine>, n: u32) -> MachineSpec {
    let id = SessionId::parse(&format!("6f9619ff-8b86-4d01-b42d-00cf4fc96{n:03}"));
    MachineSpec {
        name: machine_name(id.expect("a uuid"), 1),
        incarnation: 1,
        bot: Arc::clone(bot),
        version: Some("v1".into()),
        made: Made::default(),
    }
}

fn version(bot: &Arc<BotMachine>, version: &str) -> BotVersion {
    BotVersion { bot: Arc::clone(bot), version: Some(version.into()) }
}

/// A reserve that is kept.
struct Tended {
    wanted: watch::Sender<Vec<BotVersion>>,
    tending: JoinHandle<()>,
}

impl Tended {
    async fn full(fly: &Arc<Fly>, bot: &Arc<BotMachine>) -> Tended {
        let (wanted, bots) = watch::channel(vec![version(bot, "v1")]);
        let tended = Arc::clone(fly);
        let tending = tokio::spawn(async move { tended.tend(bots).await });
        let filled = timeout(Duration::from_secs(30), fly.filled(&version(bot, "v1"))).await;
        filled.expect("it is filled in time").expect("it is filled");
        Tended { wanted, tending }
    }

    /// Nothing is made any more; what is there stays.
    async fn rests(self) {
        self.tending.abort();
        let _ = self.tending.await;
    }
}

/// Waits until it is so.
async fn until(what: &str, is: impl Fn() -> bool) {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

impl Cloudy {
    fn noted(&self, key: &str) -> Vec<String> {
        let machines = self.there.machines().into_iter();
        let value = |(_, machine): (_, callbox_fly::wire::Machine)| {
            machine.config.and_then(|config| config.metadata.get(key).cloned())
        };
        machines.filter_map(value).collect()
    }

    fn called(&self, action: Action) -> u64 {
        self.there.calls().of(action)
    }
}

#[tokio::test]
async fn a_session_takes_one_with_one_call_or_none_and_it_is_used_once() {
    for kind in KINDS {
        let cloudy = Cloudy::quick().await;
        let bot = bot(kind, 1);
        Tended::full(&cloudy.fly, &bot).await.rests().await;
        let (_, before) = cloudy.there.machines().remove(0);
        let state = match kind {
            ReserveKind::Stopped => State::Stopped,
            ReserveKind::Suspended => State::Suspended,
            ReserveKind::Started => State::Started,
        };
        assert_eq!(before.state, Some(state), "{kind:?}");
        assert_eq!(cloudy.noted("callbox_reserve"), ["one"]);
        assert_eq!(cloudy.noted("callbox_version"), ["v1"]);
        assert_eq!(cloudy.noted("callbox_session"), [""; 0]);
        assert_eq!(cloudy.fly.list().await.expect("a list"), [], "what waits here is nobody's yet");

        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let made = Made::new(move |id| tell.send(id.to_owned()).expect("somebody listens"));
        let first = MachineSpec { made, ..spec(&bot, 1) };
        cloudy.there.reset_calls();
        let started = cloudy.fly.ensure(&first).await.expect("it starts");
        assert_eq!(started.facts.start, "reserve", "{kind:?}");
        let stages: Vec<_> = started.facts.stages.iter().map(|stage| &*stage.name).collect();
        let (expected, starts): (&[&str], u64) = match kind {
            ReserveKind::Stopped => (&["start", "boot", "prepare", "wake"], 1),
            ReserveKind::Suspended => (&["resume", "dial", "wake"], 1),
            ReserveKind::Started => (&["wake"], 0),
        };
        assert_eq!(stages, expected);
        assert_eq!(cloudy.called(Action::Start), starts, "{kind:?}");
        let quiet = [Action::Create, Action::List, Action::Get, Action::Wait, Action::Update];
        assert_eq!(quiet.map(|action| cloudy.called(action)), [0; 5], "{kind:?}");
        assert_eq!(told.recv().await, Some(format!("bots/{}", before.id)));

        // Nobody waits for the note, and it is no other configuration.
        until("it is noted", || cloudy.noted("callbox_machine") == [&*first.name]).await;
        until("its session is", || cloudy.noted("callbox_session").len() == 1).await;
        assert_eq!(cloudy.there.machines()[0].1.version, before.version);
        let listed = cloudy.fly.list().await.expect("a list");
        assert_eq!((&listed[0].name, &listed[0].keeper), (&first.name, &None));
        drop(started);
        cloudy.fly.connect(&first.name).await.expect("it is found by its session's name");

        let second = cloudy.fly.ensure(&spec(&bot, 2)).await.expect("it starts");
        assert_eq!(second.facts.start, "cold", "one machine, one session");
        for n in [1, 2] {
            cloudy.fly.destroy(&spec(&bot, n).name).await.expect("it is ended");
        }
        assert_eq!(cloudy.machines(), [""; 0], "{kind:?}");
    }
}

#[tokio::test]
async fn one_that_does_not_start_is_destroyed_and_a_fresh_one_made() {
    for (kind, preset) in [
        (ReserveKind::Stopped, Preset::NoRoomOnHost),
        (ReserveKind::Suspended, Preset::NoRoomOnHost),
    ] {
        let cloudy = Cloudy::quick().await;
        let bot = bot(kind, 1);
        Tended::full(&cloudy.fly, &bot).await.rests().await;
        let refused = Rule::always(Effect::Refuse { preset }).on(Action::Start);
        cloudy.there.add_trouble(refused);
        let spec = spec(&bot, 1);
        let started = cloudy.fly.ensure(&spec).await.expect("a fresh one starts");
        assert_eq!(started.facts.start, "cold");
        until("the other is gone", || cloudy.machines() == [&*spec.name]).await;
        cloudy.destroys(&spec, "it is the fresh one").await;
    }
}

#[tokio::test]
async fn one_whose_memory_was_lost_boots_and_one_whose_answer_is_lost_is_taken() {
    let cloudy = Cloudy::quick().await;
    let bot = bot(ReserveKind::Suspended, 2);
    Tended::full(&cloudy.fly, &bot).await.rests().await;
    cloudy.there.add_trouble(Rule::always(Effect::ColdStart).on(Action::Start).times(1));
    let started = cloudy.fly.ensure(&spec(&bot, 1)).await.expect("it starts");
    let stages: Vec<_> = started.facts.stages.iter().map(|stage| &*stage.name).collect();
    assert_eq!(
        (stages.as_slice(), &*started.facts.start),
        (&["resume", "dial", "prepare", "wake"][..], "reserve")
    );
    let lost = Effect::Cut { when: When::After };
    cloudy.there.add_trouble(Rule::always(lost).on(Action::Start).times(1));
    let started = cloudy.fly.ensure(&spec(&bot, 2)).await.expect("it starts");
    assert_eq!(started.facts.start, "reserve");
    for n in [1, 2] {
        cloudy.fly.destroy(&spec(&bot, n).name).await.expect("it is ended");
    }
    assert_eq!(cloudy.machines(), [""; 0]);
}

#[tokio::test]
async fn a_start_that_is_given_up_in_the_middle_leaves_nothing() {
    for kind in [ReserveKind::Stopped, ReserveKind::Suspended] {
        let cloudy = Cloudy::quick().await;
        let bot = bot(kind, 1);
        Tended::full(&cloudy.fly, &bot).await.rests().await;
        cloudy.there.add_trouble(Rule::always(Effect::Slow { ms: 300 }).on(Action::Start));
        let spec = spec(&bot, 1);
        let given_up = timeout(Duration::from_millis(100), cloudy.fly.ensure(&spec)).await;
        assert!(given_up.is_err(), "in the middle of the call");
        cloudy.destroys(&spec, "its name finds the machine that it had taken").await;
        assert_eq!(cloudy.fly.list().await.expect("a list"), []);
    }
}

/// A dispatcher dies between a claim and its end, or after it: whoever comes next finds by the row,
/// or on the list, what there is.
#[tokio::test]
async fn after_a_crash_each_machine_is_found() {
    for kind in KINDS {
        let cloudy = Cloudy::quick().await;
        let bot = bot(kind, 2);
        Tended::full(&cloudy.fly, &bot).await.rests().await;
        let spec = spec(&bot, 1);
        drop(cloudy.fly.ensure(&spec).await.expect("it starts"));
        let places: Vec<_> = cloudy.there.machines().into_iter().map(|(_, one)| one.id).collect();
        let listed = cloudy.fly.list().await.expect("a list").remove(0);
        let row = listed.id.expect("an id");

        // The replica dies, and another one takes its sessions over.
        let other = cloudy.another("two", 50);
        cloudy.there.reset_calls();
        other.recall(&spec.name, &row);
        let adopted = other.ensure(&spec).await.expect("it is adopted");
        drop(adopted);
        assert_eq!(cloudy.called(Action::Create), 0, "no second one: {kind:?}");
        // What the dead one had in reserve says whose it was, and is ended by that name.
        let left: Vec<Listed> = other.list().await.expect("a list");
        assert_eq!(left.len(), places.len());
        let waits = left.iter().find(|one| one.name != spec.name).expect("the other one");
        assert_eq!(waits.keeper.as_deref(), Some("one"));
        assert_eq!(of_reserve_name(&waits.name), Some("one"));
        other.destroy(&waits.name).await.expect("it is ended");
        other.destroy(&spec.name).await.expect("it is ended");
        assert_eq!(cloudy.machines(), [""; 0], "{kind:?}");
    }
}

#[tokio::test]
async fn replicas_on_one_app_never_take_the_same_machine() {
    for kind in KINDS {
        let cloudy = Cloudy::quick().await;
        let bot = bot(kind, 3);
        let (one, two) = (Arc::clone(&cloudy.fly), cloudy.another("two", 50));
        let (first, second) = tokio::join!(Tended::full(&one, &bot), Tended::full(&two, &bot));
        tokio::join!(first.rests(), second.rests());
        assert_eq!(cloudy.machines().len(), 6);
        let mut ids = BTreeSet::new();
        for n in 0..3 {
            // One after the other, as agents here go to whoever came last.
            let fly = [&one, &two];
            for (which, fly) in fly.into_iter().enumerate() {
                let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
                let made = Made::new(move |id| tell.send(id.to_owned()).expect("heard"));
                let spec = MachineSpec { made, ..spec(&bot, n * 2 + u32::from(which == 1)) };
                let started = fly.ensure(&spec).await.expect("it starts");
                assert_eq!(started.facts.start, "reserve", "{kind:?}");
                ids.insert(told.recv().await.expect("told"));
            }
        }
        assert_eq!(ids.len(), 6, "each of its own");
    }
}

#[tokio::test]
async fn another_version_takes_the_place_of_the_one_before() {
    let cloudy = Cloudy::quick().await;
    let bot = bot(ReserveKind::Started, 2);
    let tended = Tended::full(&cloudy.fly, &bot).await;
    let old = cloudy.machines();
    tended.wanted.send_replace(vec![version(&bot, "v2")]);
    cloudy.fly.filled(&version(&bot, "v2")).await.expect("it is filled");
    until("the old ones are gone", || !cloudy.machines().iter().any(|one| old.contains(one))).await;
    assert_eq!(cloudy.noted("callbox_version"), ["v2", "v2"]);
    tended.rests().await;
    // At the end of its dispatcher nothing is left.
    cloudy.fly.tidy().await.expect("tidy");
    assert_eq!(cloudy.machines(), [""; 0]);
}

#[tokio::test]
async fn one_that_breaks_or_ends_is_taken_out_and_replaced() {
    let cloudy = Cloudy::quick().await;
    let bot = bot(ReserveKind::Started, 1);
    let tended = Tended::full(&cloudy.fly, &bot).await;
    let (_, before) = cloudy.there.machines().remove(0);
    cloudy.there.exit(&before.id, callbox_standins::fly::backend::Exit::code(1)).await;
    until("another one waits", || {
        let ready = cloudy.fly.reserves()[0].level.ready == 1;
        ready && cloudy.there.machines().iter().all(|(_, one)| one.id != before.id)
    })
    .await;
    tended.rests().await;
    assert_eq!(cloudy.fly.ensure(&spec(&bot, 1)).await.expect("it starts").facts.start, "reserve");
}

#[tokio::test]
async fn what_waits_counts_and_is_given_up_first() {
    let cloudy = Cloudy::quick().await;
    let fly = cloudy.another("two", 2);
    let (kept, other) = (bot(ReserveKind::Stopped, 5), bot(ReserveKind::Stopped, 0));
    Tended::full(&fly, &kept).await.rests().await;
    assert_eq!(cloudy.machines().len(), 2, "never more than may be");
    let nobody = Claims::default();
    assert_eq!(fly.admit(&spec(&kept, 1), &nobody), Ok(Admission::Prepared));
    let next = MachineSpec { version: None, ..spec(&other, 2) };
    assert!(matches!(fly.admit(&next, &nobody), Ok(Admission::Full { .. })));
    let mut promised = Claims::default();
    promised.add(&spec(&kept, 1), true);
    promised.add(&spec(&kept, 3), true);
    assert_eq!(fly.shed(&next, &promised).await, Ok(false), "they are promised");
    assert_eq!(fly.shed(&next, &nobody).await, Ok(true));
    assert_eq!(fly.admit(&next, &nobody), Ok(Admission::Granted));
    assert_eq!(cloudy.machines().len(), 1);
}

#[tokio::test]
async fn what_is_given_up_and_cannot_be_removed_at_once_is_removed_all_the_same() {
    let cloudy = Cloudy::quick().await;
    let fly = cloudy.another("two", 1);
    Tended::full(&fly, &bot(ReserveKind::Stopped, 1)).await.rests().await;
    let no = Effect::ServerError { status: 503, when: When::Before };
    let no = cloudy.there.add_trouble(Rule::always(no).on(Action::Destroy));
    let other = MachineSpec { version: None, ..spec(&bot(ReserveKind::Stopped, 0), 1) };
    // Whoever asked for the room gives up in the middle.
    let nobody = Claims::default();
    let shed = fly.shed(&other, &nobody);
    assert!(timeout(Duration::from_secs(1), shed).await.is_err(), "Fly does not let go of it");
    cloudy.there.remove_trouble(no);
    until("it is gone", || cloudy.machines().is_empty()).await;
}

#[tokio::test]
async fn where_fly_makes_no_more_a_session_comes_before_what_waits() {
    let cloudy = Cloudy::new(Limits { machines: Some(2), ..Limits::none() }, &["bots"]).await;
    let bot = bot(ReserveKind::Stopped, 2);
    Tended::full(&cloudy.fly, &bot).await.rests().await;
    let next = MachineSpec { version: None, ..spec(&bot, 1) };
    let started = cloudy.fly.ensure(&next).await.expect("it starts");
    assert_eq!(started.facts.start, "cold", "of another version");
    assert_eq!(cloudy.machines().len(), 2);
    assert!(cloudy.machines().contains(&next.name));
}

#[tokio::test]
async fn what_is_too_large_to_be_suspended_is_refused_by_its_key() {
    let cloudy = Cloudy::quick().await;
    let mut bot = (*bot(ReserveKind::Suspended, 1)).clone();
    (bot.memory_mib, bot.vcpus) = (4096, 2);
    struct Nobody;
    impl callbox_machines::Progress for Nobody {
        fn stage(&self, _: &str) {}
    }
    let refused = cloudy.fly.prepare(&version(&Arc::new(bot), "v1"), &Nobody).await;
    let refused = refused.expect_err("Fly cannot do that").to_string();
    assert!(refused.contains("bots.parrot.reserve.kind"), "{refused}");
}
