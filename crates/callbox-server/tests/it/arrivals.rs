//! Agents that dial the dispatcher.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};

use async_trait::async_trait;
use callbox_core::{Fault, MachineFacts, reserve_name};
use callbox_link::{
    Link,
    fake::{FakeAgent, Script as AgentScript},
    fresh_wake, over_websocket,
};
use callbox_machines::{
    Arrivals, BotVersion, FakeProvider, ImageRun, Listed, MachineSpec, Progress, Provider, Script,
    StartFault, Started,
};
use callbox_protocol::join::{BOOT_HEADER, link_path};
use callbox_server::store::Replica;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error as WebSocketError, client::IntoClientRequest},
};

use crate::app::{SOON, TestApp, code};

const BOOT: &str = "00112233445566778899aabbccddeeff";

/// Machines that dial, and are made by saying so.
struct Dialling {
    arrivals: Arrivals,
    dispatcher: OnceLock<SocketAddr>,
    agents: Mutex<BTreeMap<String, FakeAgent>>,
    /// Machines in reserve, and whether each may connect.
    kept: Mutex<BTreeMap<String, bool>>,
}

impl Dialling {
    fn new() -> Arc<Dialling> {
        Arc::new(Dialling {
            arrivals: Arrivals::new("of all replicas"),
            dispatcher: OnceLock::new(),
            agents: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    /// One connection of this machine.
    async fn dial(&self, machine: &str, token: &str, boot: &str) -> Result<(), StatusCode> {
        let address = self.dispatcher.get().unwrap();
        let url = format!("ws://{address}{}", link_path(machine));
        let mut request = url.into_client_request().unwrap();
        let text = |text: &str| HeaderValue::from_str(text).unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, text(&format!("Bearer {token}")));
        request.headers_mut().insert(BOOT_HEADER, text(boot));
        let websocket = match connect_async(request).await {
            Ok((websocket, _)) => websocket,
            Err(WebSocketError::Http(refusal)) => return Err(refusal.status()),
            Err(error) => panic!("{error}"),
        };
        let agent = self.agent(machine);
        tokio::spawn(async move { agent.serve(over_websocket(websocket)).await });
        Ok(())
    }

    fn agent(&self, machine: &str) -> FakeAgent {
        self.agents.lock().unwrap()[machine].clone()
    }
}

#[async_trait]
impl Provider for Dialling {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn prepare(&self, _: &BotVersion, _: &dyn Progress) -> Result<(), StartFault> {
        Ok(())
    }

    async fn ensure(&self, spec: &MachineSpec) -> Result<Started, StartFault> {
        let agent = FakeAgent::new(AgentScript::default());
        self.agents.lock().unwrap().insert(spec.name.clone(), agent);
        let first = self.arrivals.first_token(&spec.name);
        self.dial(&spec.name, &first, BOOT).await.unwrap();
        let link = self.arrivals.link(&spec.name).await;
        let failed = |error| StartFault::Provider(Fault::unavailable(error));
        link.prepare(&spec.bot.run.prepare(&ImageRun::default()))
            .await
            .map_err(StartFault::of_prepare)?;
        link.wake(&fresh_wake(&spec.name)).await.map_err(failed)?;
        let facts = MachineFacts {
            accelerator: "none".into(),
            start: "dialled".into(),
            stages: Vec::new(),
            not_enforced: Vec::new(),
            price: None,
        };
        Ok(Started { link, facts })
    }

    async fn connect(&self, name: &str) -> Result<Link, Fault> {
        Ok(self.arrivals.link(name).await)
    }

    fn arrivals(&self) -> Option<&Arrivals> {
        Some(&self.arrivals)
    }

    fn keeps(&self, name: &str) -> Option<bool> {
        self.kept.lock().unwrap().get(name).copied()
    }

    async fn destroy(&self, name: &str) -> Result<(), Fault> {
        if let Some(agent) = self.agents.lock().unwrap().get(name) {
            agent.cut();
        }
        self.arrivals.forget(name);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_machine_that_dials_serves_its_session_and_comes_back() {
    let machines = Dialling::new();
    let fake = Arc::new(FakeProvider::new(Script::default()));
    let app = TestApp::behind(Arc::clone(&machines) as Arc<dyn Provider>, fake).await;
    machines.dispatcher.set(app.address).unwrap();
    let (id, _) = app.start(json!({ "bot": "parrot", "transport": "fake" })).await;
    let machine = app.wait(&id, "ready").await.machine.unwrap();
    let first = machines.arrivals.first_token(&machine);
    let agent = machines.agent(&machine);

    // Whoever reads the machine's configuration later, or is somebody else.
    let refused = async |token: &str, boot: &str| machines.dial(&machine, token, boot).await;
    let other = BOOT.replace('0', "f");
    assert_eq!(refused(&first, BOOT).await, Err(StatusCode::FORBIDDEN), "it has started");
    assert_eq!(refused(&first, &other).await, Err(StatusCode::FORBIDDEN));
    assert_eq!(refused("00", BOOT).await, Err(StatusCode::UNAUTHORIZED));
    let next = agent.seen().rejoin.last().unwrap().token.clone();
    assert_eq!(refused(&next, &other).await, Err(StatusCode::UNAUTHORIZED));
    assert_eq!(refused(&next, "no boot").await, Err(StatusCode::UNAUTHORIZED));

    // A proxy in between lost the connection.
    agent.cut();
    assert_eq!(refused(&next, BOOT).await, Ok(()));
    agent.wait_for(|seen| seen.connections == 2).await;
    agent.exit_bot(0);
    assert_eq!(code(&app.wait(&id, "ended").await), "bot-finished");
    assert_eq!((agent.seen().sessions.len(), agent.seen().rejoin.len()), (1, 2));

    assert_eq!(refused(&next, BOOT).await, Err(StatusCode::GONE), "nobody wants it any more");
    assert_eq!(refused("00", BOOT).await, Err(StatusCode::UNAUTHORIZED), "nor says so to all");
    for unknown in ["cb-00000000000000000000000000000001-1", "cb-1", "%2F"] {
        let answer = machines.dial(unknown, &next, BOOT).await;
        assert_eq!(answer, Err(StatusCode::NOT_FOUND), "{unknown}");
    }
    let plain = app.anonymous(reqwest::Method::GET, &link_path(&machine)).send().await.unwrap();
    assert_eq!(plain.status(), StatusCode::BAD_REQUEST, "no websocket");
    tokio::time::timeout(SOON, app.finish()).await.unwrap();
}

#[tokio::test]
async fn a_machine_in_reserve_comes_to_its_replica_alone() {
    let machines = Dialling::new();
    let fake = Arc::new(FakeProvider::new(Script::default()));
    let app = TestApp::behind(Arc::clone(&machines) as Arc<dyn Provider>, fake).await;
    machines.dispatcher.set(app.address).unwrap();
    let ours = reserve_name(app.plane.replicas.id(), "1");
    let first = machines.arrivals.first_token(&ours);
    machines.agents.lock().unwrap().insert(ours.clone(), FakeAgent::new(AgentScript::default()));
    let set = |door| machines.kept.lock().unwrap().insert(ours.clone(), door);
    let dial = async |token: &str, boot: &str| machines.dial(&ours, token, boot).await;

    assert_eq!(dial("00", BOOT).await, Err(StatusCode::UNAUTHORIZED));
    assert_eq!(dial(&first, BOOT).await, Err(StatusCode::GONE), "we know nothing of it");
    set(false);
    let other = BOOT.replace('0', "f");
    assert_eq!(dial(&first, &other).await, Err(StatusCode::FORBIDDEN), "another process");
    assert_eq!(dial(&first, BOOT).await, Err(StatusCode::SERVICE_UNAVAILABLE), "it shall sleep");
    set(true);
    assert_eq!(dial(&first, BOOT).await, Ok(()));
    machines.arrivals.link(&ours).await.health().await.unwrap();
    assert_eq!(machines.agent(&ours).seen().connections, 1);

    let gone = reserve_name("00000000000000bb", "1");
    let token = machines.arrivals.first_token(&gone);
    assert_eq!(machines.dial(&gone, &token, BOOT).await, Err(StatusCode::GONE), "no such replica");
    let theirs = reserve_name("00000000000000aa", "1");
    let id = "00000000000000aa".to_owned();
    app.plane.store.beat(&Replica { id, place: String::new(), url: String::new() }).await.unwrap();
    let token = machines.arrivals.first_token(&theirs);
    let elsewhere = machines.dial(&theirs, &token, BOOT).await;
    assert_eq!(elsewhere, Err(StatusCode::SERVICE_UNAVAILABLE), "it lives, and is not reached");
    tokio::time::timeout(SOON, app.finish()).await.unwrap();
}
