//! The provider `fly` against the stand-in for Fly's API, in which each machine is a fake agent
//! that comes to us as the real one does.

mod reserve;

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use callbox_core::{FaultKind, SessionId, machine_name, of_reserve_name};
use callbox_fly::{Action, Client, Prices, Token};
use callbox_link::fake::{FakeAgent, Script as AgentScript};
use callbox_machines::{
    Admission, Claims, Cloud, Fly, MachineSpec, Made, Provider as _, StartFault, contract,
    fly::FlyConfig,
};
use callbox_protocol::join::{JOIN_FILE, Join};
use callbox_standins::fly::{
    Limits, RegionLimits, Settings, StandIn,
    backend::{Exit, Fake, Launched, Program, Times, Word},
    trouble::{Effect, Preset, Rule, When},
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};

const TOKEN: &str = "FlyV1 fm2_test";

/// Fly, and a provider that makes machines there.
struct Cloudy {
    fly: Arc<Fly>,
    there: StandIn,
    home: Home,
    url: String,
    serving: JoinHandle<()>,
}

/// Where agents dial: the replicas by their ids. The last one drives the sessions.
type Home = Arc<Mutex<Vec<(String, Weak<Fly>)>>>;

impl Drop for Cloudy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Cloudy {
    async fn new(limits: Limits, apps: &[&str]) -> Cloudy {
        let home = Home::default();
        let mut settings = Settings::new(apps[0], Token::new(TOKEN));
        settings.apps = apps.iter().map(|app| (*app).to_owned()).collect();
        settings.limits = limits;
        let backend = Fake::new(Times::NONE, 7, program(Arc::clone(&home)));
        let there = StandIn::new(settings, Arc::new(backend));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let served = there.clone();
        let serving = tokio::spawn(async move { served.serve(listener).await.expect("it serves") });
        let fly = provider(&url, &home, "one", apps, 50);
        Cloudy { fly, there, home, url, serving }
    }

    /// Another replica, which drives the sessions from now on.
    fn another(&self, keeper: &str, max_machines: usize) -> Arc<Fly> {
        provider(&self.url, &self.home, keeper, &["bots"], max_machines)
    }

    async fn quick() -> Cloudy {
        Cloudy::new(Limits::none(), &["bots"]).await
    }

    fn machines(&self) -> Vec<String> {
        let named = |(_, machine): (_, callbox_fly::wire::Machine)| machine.name;
        self.there.machines().into_iter().filter_map(named).collect()
    }

    /// That it starts, and is the only one of its name.
    async fn starts(&self, spec: &MachineSpec, why: &str) {
        let started = timeout(Duration::from_secs(60), self.fly.ensure(spec)).await;
        let started = started.unwrap_or_else(|_| panic!("{why}: it does not start"));
        let started = started.unwrap_or_else(|fault| panic!("{why}: {fault}"));
        assert_eq!(started.facts.accelerator, "fly");
        let price = started.facts.price.expect("Fly wants money");
        // A shared processor and 256 MiB: in iad, or in ord when that is full.
        assert!([750, 938].contains(&price.nano_usd_per_s), "{why}: {price:?}");
        assert_eq!(self.machines(), std::slice::from_ref(&spec.name), "{why}");
    }

    async fn destroys(&self, spec: &MachineSpec, why: &str) {
        let destroyed = timeout(Duration::from_secs(60), self.fly.destroy(&spec.name)).await;
        destroyed
            .unwrap_or_else(|_| panic!("{why}: it is not destroyed"))
            .unwrap_or_else(|fault| panic!("{why}: {fault}"));
        assert_eq!(self.machines(), [] as [String; 0], "{why}");
    }
}

fn provider(url: &str, home: &Home, keeper: &str, apps: &[&str], max_machines: usize) -> Arc<Fly> {
    let config = FlyConfig {
        apps: apps.iter().map(|app| (*app).to_owned()).collect(),
        max_machines,
        public_url: "https://box.example".into(),
        authorities: None,
        deployment: "d1".into(),
        orphan_after: Duration::from_secs(120),
        prices: prices(),
        image_gb: 2.0,
        keeper: keeper.into(),
    };
    let client = Client::new(url, &Token::new(TOKEN)).expect("a client");
    let fly = Arc::new(Fly::new(client, config, b"secret"));
    home.lock().expect("fine").push((keeper.to_owned(), Arc::downgrade(&fly)));
    fly
}

fn prices() -> Prices {
    Prices {
        as_of: "2026-06-07".into(),
        shared_cpu: 0.695,
        performance_cpu: 21.0,
        memory_gb: 5.0,
        rootfs_gb: 0.15,
        regions: [("iad".to_owned(), 1.0), ("ord".to_owned(), 1.25)].into(),
    }
}

/// What runs in each machine: the image's entry point.
fn program(home: Home) -> Program {
    Program::new(move |launched| {
        let home = Arc::clone(&home);
        async move {
            let Launched { spec, mut words, .. } = launched;
            let file = spec.config.files.iter().find(|file| file.guest_path == JOIN_FILE);
            let file = file.and_then(|file| file.raw_value.clone()).expect("a file to join by");
            let join = STANDARD.decode(file).expect("base64");
            let join: Join = serde_json::from_slice(&join).expect("a join");
            let agent = FakeAgent::new(AgentScript::default());
            let serving = serve(agent, join, format!("{:0>32}", spec.id), home);
            tokio::select! {
                () = serving => Exit::code(0),
                Some(Word::Signal(_)) = words.recv() => Exit::code(0),
            }
        }
    })
}

async fn serve(agent: FakeAgent, join: Join, boot: String, home: Home) {
    let (mut name, mut token) = (join.machine, join.token);
    while agent.seen().stops.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        // As the dispatcher's route does it.
        let keeper = of_reserve_name(&name);
        let fly = {
            let home = home.lock().expect("fine");
            let found = home.iter().rfind(|(id, _)| keeper.is_none_or(|keeper| keeper == id));
            found.and_then(|(_, fly)| fly.upgrade())
        };
        let Some(fly) = fly else { return };
        match keeper.map(|_| fly.keeps(&name)) {
            Some(None) => return,
            Some(Some(false)) => continue,
            Some(Some(true)) | None => {}
        }
        let arrivals = fly.arrivals().expect("agents dial");
        if arrivals.admit(&name, &token, &boot, false).is_err() {
            continue;
        }
        let (host, machine) = tokio::io::duplex(64 * 1024);
        arrivals.arrive(&name, &boot, Box::new(host));
        drop(fly);
        agent.serve(Box::new(machine)).await;
        if let Some(told) = agent.seen().rejoin.last().cloned() {
            (name, token) = (told.machine.unwrap_or(name), told.token);
        }
    }
}

fn specs() -> [MachineSpec; 2] {
    let mut bot = (*crate::bot()).clone();
    bot.image = "registry.fly.io/bots@sha256:00".into();
    bot.cloud = Cloud { regions: vec!["iad".into(), "ord".into()], ..Cloud::default() };
    contract::specs(Arc::new(bot), crate::ids())
}

#[tokio::test]
async fn fly_keeps_the_contract() {
    let cloudy = Cloudy::quick().await;
    contract::check(&*cloudy.fly, &specs()).await;
    assert_eq!(cloudy.machines(), [] as [String; 0]);
}

#[tokio::test]
async fn what_fly_is_asked_for_holds_nothing_of_a_session() {
    let cloudy = Cloudy::quick().await;
    let [spec, _] = specs();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let made = Made::new(move |id| tell.send(id.to_owned()).expect("somebody listens"));
    cloudy.starts(&MachineSpec { made, ..spec.clone() }, "all is well").await;
    let (app, machine) = cloudy.there.machines().remove(0);
    assert_eq!(told.recv().await, Some(format!("{app}/{}", machine.id)));
    let config = machine.config.expect("a configuration");
    let metadata: Vec<_> = config.metadata.keys().map(String::as_str).collect();
    let ours = ["bot", "deployment", "incarnation", "machine", "session"];
    assert_eq!(metadata, ours.map(|key| format!("callbox_{key}")));
    assert_eq!((config.auto_destroy, config.env.len()), (Some(true), 0));
    assert!(config.init.is_none() && config.services.is_empty(), "{config:?}");
    let guest = config.guest.expect("a shape");
    assert_eq!((guest.cpus, guest.memory_mb), (Some(1), Some(256)));
    let listed = cloudy.fly.list().await.expect("a list");
    assert_eq!(
        (listed[0].name.as_str(), listed[0].deployment.as_deref()),
        (&*spec.name, Some("d1"))
    );
    assert!(listed[0].made_at.is_some());
    cloudy.destroys(&spec, "all is well").await;
}

/// Whatever Fly does with the calls, there is one machine, and then none.
#[tokio::test]
async fn troubles_double_nothing_and_leave_nothing() {
    let once = |effect: Effect, action| Rule::always(effect).on(action).times(1);
    let (before, after, half) = (When::Before, When::After, When::Half);
    let server = |when| Effect::ServerError { status: 503, when };
    let refuse = |preset| Effect::Refuse { preset };
    for rule in [
        once(Effect::Timeout { when: before }, Action::Create),
        once(Effect::Timeout { when: after }, Action::Create),
        once(server(before), Action::Create),
        once(server(after), Action::Create),
        once(Effect::Cut { when: before }, Action::Create),
        once(Effect::Cut { when: after }, Action::Create),
        once(Effect::Cut { when: half }, Action::Create),
        once(refuse(Preset::RateLimited), Action::Create),
        once(refuse(Preset::NoMemory), Action::Create),
        once(refuse(Preset::HostFrozen), Action::Create),
        once(refuse(Preset::ImageMissing), Action::Create),
        once(Effect::SlowCreate { ms: 300 }, Action::Create),
        once(server(after), Action::Destroy),
        once(Effect::Cut { when: after }, Action::Destroy),
        once(refuse(Preset::LeaseHeld), Action::Destroy),
        once(refuse(Preset::Concurrent), Action::Destroy),
        once(refuse(Preset::RateLimited), Action::Destroy),
    ] {
        let why = format!("{:?}", rule.effect);
        let cloudy = Cloudy::quick().await;
        let [spec, _] = specs();
        cloudy.there.add_trouble(rule);
        cloudy.starts(&spec, &why).await;
        // Its caller repeats what failed, as the driver does.
        while let Err(fault) = cloudy.fly.destroy(&spec.name).await {
            assert!(matches!(fault.kind, FaultKind::Unknown | FaultKind::Unavailable), "{fault}");
        }
        cloudy.destroys(&spec, &why).await;
        let struck = cloudy.there.troubles().into_iter().map(|listed| listed.struck).sum::<u64>();
        assert_eq!(struck, 1, "{why}: the trouble was met");
    }
}

#[tokio::test]
async fn a_start_that_is_given_up_in_the_middle_leaves_nothing() {
    let cloudy = Cloudy::quick().await;
    let [spec, _] = specs();
    cloudy.there.add_trouble(Rule::always(Effect::Slow { ms: 300 }).on(Action::Create));
    // In the middle of the call; and when its answer is lost as well.
    assert!(timeout(Duration::from_millis(100), cloudy.fly.ensure(&spec)).await.is_err());
    cloudy.destroys(&spec, "the call is under way").await;
    cloudy.there.clear_troubles();
    cloudy.there.add_trouble(Rule::always(Effect::Cut { when: When::After }).on(Action::Create));
    cloudy.there.add_trouble(Rule::always(Effect::ListOmitsNew { for_ms: 3000 }));
    assert!(timeout(Duration::from_millis(300), cloudy.fly.ensure(&spec)).await.is_err());
    cloudy.destroys(&spec, "nobody knows whether it was made, and lists are stale").await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_words() {
    let cloudy = Cloudy::quick().await;
    let [spec, _] = specs();
    for (preset, kind, says) in [
        (Preset::NoToken, FaultKind::Refused, "fly.token"),
        (Preset::NotYours, FaultKind::Refused, "fly.apps"),
        (Preset::MachineLimit, FaultKind::Unavailable, "machine limit"),
    ] {
        cloudy.there.clear_troubles();
        cloudy.there.add_trouble(Rule::always(Effect::Refuse { preset }).on(Action::Create));
        let Err(StartFault::Provider(fault)) = cloudy.fly.ensure(&spec).await else {
            panic!("{preset:?} starts nothing");
        };
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.detail.contains(says), "{fault}");
        assert!(!fault.detail.contains("fm2_test"), "{fault}");
    }
    cloudy.there.clear_troubles();
    let ends = Effect::Exits { after_ms: 0, code: 3 };
    cloudy.there.add_trouble(Rule::always(ends).on(Action::Create));
    let mut silent = specs()[0].clone();
    silent.name =
        machine_name(SessionId::parse("6f9619ff-8b86-4d01-b42d-00cf4fc964f3").expect("id"), 1);
    let ended = timeout(Duration::from_secs(30), cloudy.fly.ensure(&silent)).await;
    if let Ok(Err(StartFault::Provider(fault))) = ended {
        assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
    }
    cloudy.fly.destroy(&silent.name).await.expect("it is gone");
}

#[tokio::test]
async fn a_region_that_is_full_is_left_out() {
    let mut limits = Limits::none();
    limits.regions.insert("iad".into(), RegionLimits { capacity: Some(0), quota_mb: Some(0) });
    let cloudy = Cloudy::new(limits, &["bots"]).await;
    let [spec, _] = specs();
    cloudy.starts(&spec, "the second region has room").await;
    assert_eq!(cloudy.there.machines()[0].1.region.as_deref(), Some("ord"));
    cloudy.destroys(&spec, "the second region has room").await;
}

/// With the documented limits: more apps, more machines a second, and no call that is refused.
#[tokio::test]
async fn limits_are_kept_before_fly_says_so() {
    let cloudy = Cloudy::new(Limits::default(), &["one", "two", "three"]).await;
    let specs: Vec<MachineSpec> = (0..12)
        .map(|n| {
            let id = SessionId::parse(&format!("6f9619ff-8b86-4d01-b42d-00cf4fc96{n:03}"));
            MachineSpec { name: machine_name(id.expect("a uuid"), 1), ..specs()[0].clone() }
        })
        .collect();
    let started = futures::future::join_all(specs.iter().map(|spec| cloudy.fly.ensure(spec))).await;
    for started in started {
        started.expect("it starts");
    }
    let ended = futures::future::join_all(specs.iter().map(|s| cloudy.fly.destroy(&s.name))).await;
    for ended in ended {
        ended.expect("it ends");
    }
    assert_eq!(cloudy.machines(), [] as [String; 0]);
    let calls = cloudy.there.calls();
    assert_eq!(calls.of(Action::Create), 12, "each was made by one call: {calls:?}");
    let refused: u64 = calls.actions.values().filter_map(|one| one.statuses.get(&429)).sum();
    assert_eq!(refused, 0, "{calls:?}");
}

#[tokio::test]
async fn who_must_wait_for_a_limit_waits_before_anything_is_bought() {
    let cloudy = Cloudy::quick().await;
    let [spec, _] = specs();
    let mut claims = Claims::default();
    let granted = |claims: &Claims| cloudy.fly.admit(&spec, claims) == Ok(Admission::Granted);
    let mut so_many = 0;
    while granted(&claims) {
        so_many += 1;
        assert!(so_many < 20, "whoever comes is let in");
        let id = format!("6f9619ff-8b86-4d01-b42d-0000000000{so_many:02x}");
        let name = machine_name(SessionId::parse(&id).expect("a uuid"), 1);
        claims.add(&MachineSpec { name, ..spec.clone() }, true);
    }
    // Two at once, and three that wait for their turn.
    assert_eq!(so_many, 5);
    assert!(matches!(cloudy.fly.admit(&spec, &claims), Ok(Admission::Later { .. })));
    assert_eq!(cloudy.fly.start_pace(), Some(Duration::from_secs(1)));
    cloudy.fly.share(2);
    assert_eq!(cloudy.fly.start_pace(), Some(Duration::from_secs(2)));
    assert_eq!(cloudy.machines(), [] as [String; 0]);
}
