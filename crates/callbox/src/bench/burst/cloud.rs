//! The cloud of the benchmark: the stand-in for Fly's API, with its documented limits and times.
//! In each machine runs a fake agent, which dials the dispatcher as the real one does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use callbox_fly::Token;
use callbox_link::fake::{FakeAgent, Script};
use callbox_link::over_websocket;
use callbox_protocol::join::{BOOT_HEADER, JOIN_FILE, Join, link_path};
use callbox_standins::fly::backend::{Exit, Fake, Launched, Program, Times, Word};
use callbox_standins::fly::{Calls, Limits, Settings, StandIn};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::error::CliError;

/// Between two tries to reach the dispatcher.
const AGAIN: Duration = Duration::from_millis(200);
/// Its times and its machines' ids are the same in every run.
const SEED: u64 = 7;

/// See the module's documentation. Ends when it is dropped.
pub struct Cloud {
    there: StandIn,
    serving: JoinHandle<()>,
    /// Where its API is.
    pub url: String,
    ran: Arc<Ran>,
}

/// The ids of the machines that ran, by name: one that was bought twice has two.
type Ran = Mutex<BTreeMap<String, BTreeSet<String>>>;

impl Drop for Cloud {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Cloud {
    /// One with these apps, and room for so many machines.
    pub async fn open(apps: &[String], machines: u32, token: &str) -> Result<Cloud, CliError> {
        let mut settings = Settings::new("", Token::new(token));
        settings.apps = apps.to_vec();
        settings.limits = Limits { machines: Some(machines), ..Limits::default() };
        settings.seed = SEED;
        let ran = Arc::new(Ran::default());
        let backend = Fake::new(Times::default(), SEED, program(Arc::clone(&ran)));
        let there = StandIn::new(settings, Arc::new(backend));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let served = there.clone();
        let serving = tokio::spawn(async move {
            let _ = served.serve(listener).await;
        });
        Ok(Cloud { there, serving, url, ran })
    }

    /// What was asked of it since the last time.
    pub fn take_calls(&self) -> Calls {
        let calls = self.there.calls();
        self.there.reset_calls();
        calls
    }

    /// The names of all machines that there are.
    pub fn machines(&self) -> Vec<String> {
        self.there.machines().into_iter().filter_map(|(_, machine)| machine.name).collect()
    }

    /// Names that more than one machine ran under.
    pub fn bought_twice(&self) -> usize {
        self.ran.lock().expect("no panic while held").values().filter(|ids| ids.len() > 1).count()
    }
}

fn program(ran: Arc<Ran>) -> Program {
    Program::new(move |launched| {
        let ran = Arc::clone(&ran);
        async move {
            let Launched { spec, mut words, .. } = launched;
            let name = spec.name.clone();
            ran.lock()
                .expect("no panic while held")
                .entry(name)
                .or_default()
                .insert(spec.id.clone());
            let file = spec.config.files.iter().find(|file| file.guest_path == JOIN_FILE);
            let join = file.and_then(|file| STANDARD.decode(file.raw_value.as_ref()?).ok());
            let join = join.and_then(|join| serde_json::from_slice::<Join>(&join).ok());
            let Some(join) = join else { return Exit::code(1) };
            let until_signal = async {
                loop {
                    match words.recv().await {
                        Some(Word::Signal(_)) => return,
                        Some(Word::Resumed) => {}
                        None => std::future::pending().await,
                    }
                }
            };
            let boot = boot(&spec.id);
            tokio::select! {
                () = serve(&join, &boot) => Exit::code(0),
                () = until_signal => Exit::code(0),
            }
        }
    })
}

/// A new process each time: it has a number of its own.
fn boot(machine: &str) -> String {
    let drawn = uuid::Uuid::new_v4().simple().to_string();
    format!("{:0>16}{}", machine.chars().take(16).collect::<String>(), &drawn[..16])
}

/// Dials until the dispatcher says that nobody wants it any more, or stops it.
async fn serve(join: &Join, boot: &str) {
    let agent = FakeAgent::new(Script::default());
    let base = join.url.replacen("http", "ws", 1);
    let (mut machine, mut token) = (join.machine.clone(), join.token.clone());
    while agent.seen().stops.is_empty() {
        // What it was told last: a machine of a reserve gets its session's name.
        if let Some(told) = agent.seen().rejoin.last() {
            machine = told.machine.clone().unwrap_or(machine);
            token.clone_from(&told.token);
        }
        let url = format!("{base}{}", link_path(&machine));
        let Ok(mut request) = url.as_str().into_client_request() else { return };
        let headers = request.headers_mut();
        let (Ok(bearer), Ok(boot)) = (format!("Bearer {token}").parse(), boot.parse()) else {
            return;
        };
        headers.insert("authorization", bearer);
        headers.insert(BOOT_HEADER, boot);
        match connect_async(request).await {
            Ok((websocket, _)) => agent.serve(over_websocket(websocket)).await,
            Err(Error::Http(answer)) if answer.status() == 410 => return,
            Err(_) => {}
        }
        sleep(AGAIN).await;
    }
}
