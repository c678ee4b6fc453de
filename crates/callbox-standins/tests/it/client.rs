//! The client against the stand-in over real sockets: every call.

use std::sync::Arc;
use std::time::Duration;

use callbox_fly::wire::{CreateApp, CreateMachine, MachineConfig, State, UpdateMachine};
use callbox_fly::{Client, ErrorKind, ListFilter, Stop, Thing, Wait};
use callbox_standins::fly::backend::{Fake, Program, Times};
use callbox_standins::fly::{Limits, StandIn};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::settings;

/// Plenty for one call, on a host with better things to do.
pub const LIMIT: Duration = Duration::from_secs(20);

pub struct Served {
    pub standin: StandIn,
    pub client: Client,
    pub tasks: JoinSet<()>,
}

pub async fn served(times: Times) -> Served {
    let fake = Arc::new(Fake::new(times, 7, Program::until_signal()));
    let standin = StandIn::new(settings(Limits::none()), fake);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    let serving = standin.clone();
    tasks.spawn(async move { serving.serve(listener).await.unwrap() });
    let client = Client::new(&base, &standin.token()).unwrap();
    Served { standin, client, tasks }
}

pub fn named(name: &str) -> CreateMachine {
    let config = MachineConfig {
        image: Some("registry.fly.io/bots@sha256:ab".into()),
        metadata: [("session".to_owned(), name.to_owned())].into(),
        ..MachineConfig::default()
    };
    CreateMachine { name: Some(name.to_owned()), config, ..CreateMachine::default() }
}

pub fn soon() -> Instant {
    Instant::now() + LIMIT
}

#[tokio::test]
async fn every_call_of_the_client_is_understood() {
    let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
    let machine = client.create("bots", &named("cb-1"), LIMIT).await.unwrap();
    assert_eq!(machine.state, Some(State::Created));
    let digest = machine.image_ref.unwrap().digest;
    assert_eq!(digest.as_deref(), Some("sha256:ab"));
    let id = machine.id.as_str();
    let wait = Wait::for_any([State::Started, State::Failed, State::Destroyed]);
    let reached = client.wait_until("bots", id, &wait, soon()).await.unwrap();
    assert_eq!((reached.state, reached.version), (State::Started, machine.instance_id));
    let got = client.get("bots", id, LIMIT).await.unwrap();
    assert_eq!(got.name.as_deref(), Some("cb-1"));
    assert!(got.created().is_some());

    let filter = ListFilter {
        metadata: [("session".to_owned(), "cb-1".to_owned())].into(),
        summary: true,
        ..ListFilter::default()
    };
    assert_eq!(client.list("bots", &filter, LIMIT).await.unwrap().len(), 1);
    client.set_metadata("bots", id, "a b/c", "d", LIMIT).await.unwrap();
    assert_eq!(client.metadata("bots", id, LIMIT).await.unwrap()["a b/c"], "d");
    client.remove_metadata("bots", id, "a b/c", LIMIT).await.unwrap();
    assert_eq!(client.metadata("bots", id, LIMIT).await.unwrap().len(), 1);

    client.suspend("bots", id, LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Suspended]);
    client.wait_until("bots", id, &wait, soon()).await.unwrap();
    let started = client.start("bots", id, LIMIT).await.unwrap();
    assert_eq!(started.previous_state, Some(State::Suspended));
    let wait = Wait::for_any([State::Started]);
    client.wait_until("bots", id, &wait, soon()).await.unwrap();
    let lease =
        client.acquire_lease("bots", id, Duration::from_secs(60), None, LIMIT).await.unwrap();
    assert_eq!(client.lease("bots", id, LIMIT).await.unwrap().nonce, lease.nonce);
    let held = client.stop("bots", id, &Stop::default(), LIMIT).await.unwrap_err();
    assert_eq!(held.kind, ErrorKind::LeaseHeld);
    let update = UpdateMachine { config: named("cb-1").config, ..UpdateMachine::default() };
    let nonce = Some(lease.nonce.as_str());
    client.update("bots", id, &update, nonce, LIMIT).await.unwrap();
    client.wait_until("bots", id, &wait, soon()).await.unwrap();
    client.release_lease("bots", id, &lease.nonce, LIMIT).await.unwrap();

    let busy = client.destroy("bots", id, false, LIMIT).await.unwrap_err();
    assert!(matches!(busy.kind, ErrorKind::WrongState { .. }), "{busy}");
    let how = Stop { signal: Some("SIGTERM".into()), timeout: Some(Duration::from_secs(5)) };
    client.stop("bots", id, &how, LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Stopped]);
    client.wait_until("bots", id, &wait, soon()).await.unwrap();
    let events = client.events("bots", id, Some(50), LIMIT).await.unwrap();
    let exit = events.iter().find_map(callbox_fly::wire::Event::exit).unwrap();
    assert_eq!((exit.exit_code, exit.requested_stop), (Some(0), true));
    client.destroy("bots", id, false, LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Destroyed]);
    client.wait_until("bots", id, &wait, soon()).await.unwrap();
    let gone = client.destroy("bots", id, true, LIMIT).await.unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound { thing: Thing::Machine });

    let app = CreateApp {
        name: Some("more".into()),
        org_slug: Some("personal".into()),
        ..CreateApp::default()
    };
    client.create_app(&app, LIMIT).await.unwrap();
    let taken = client.create_app(&app, LIMIT).await.unwrap_err();
    assert_eq!(taken.kind, ErrorKind::NameTaken { machine_id: None });
    assert_eq!(client.app("more", LIMIT).await.unwrap().name, "more");
    client.delete_app("more", LIMIT).await.unwrap();
    let gone = client.app("more", LIMIT).await.unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound { thing: Thing::App });
    assert!(standin.machines().is_empty());
}

#[tokio::test]
async fn a_create_that_is_repeated_names_the_first() {
    let Served { client, tasks: _serving, .. } = served(Times::NONE).await;
    let machine = client.create("bots", &named("cb-1"), LIMIT).await.unwrap();
    let error = client.create("bots", &named("cb-1"), LIMIT).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NameTaken { machine_id: Some(machine.id) });
    assert!(error.request_id.is_some_and(|id| id.ends_with("-standin")));
}

#[tokio::test]
async fn what_is_refused_by_its_state_names_it() {
    let times =
        Times { build: callbox_standins::fly::backend::Spread::fixed(60_000), ..Times::NONE };
    let Served { client, tasks: _serving, .. } = served(times).await;
    let machine = client.create("bots", &named("cb-1"), LIMIT).await.unwrap();
    let early = client.start("bots", &machine.id, LIMIT).await.unwrap_err();
    assert_eq!(early.kind, ErrorKind::WrongState { state: Some(State::Created) });
    let wait = Wait { timeout: Some(Duration::from_secs(1)), ..Wait::default() };
    let error = client.wait("bots", &machine.id, &wait, LIMIT).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout { currently: Some(State::Created) });
}

#[tokio::test]
async fn closing_leaves_nothing() {
    let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
    for name in ["cb-1", "cb-2"] {
        client.create("bots", &named(name), LIMIT).await.unwrap();
    }
    assert!(standin.close(LIMIT).await);
    assert!(standin.machines().is_empty());
}
