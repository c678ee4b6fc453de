//! The transports that bots name, and those that living sessions still have.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use callbox_core::{Fault, FaultKind, ReadyWhen};
use callbox_machines::Network;
use callbox_server::{
    config::{Config, DailySection},
    store::{Deployment, Store, each_living},
};
use callbox_transports::{Daily, DailyConfig, SessionTokens, Transport, Websocket, daily::API_URL};
use tokio::time::{Instant, sleep};

use crate::error::{CliError, chain};

/// All that there are.
const NAMES: [&str; 2] = ["websocket", "daily"];
/// How long a vendor that does not answer is asked again before the dispatcher gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// That every bot names transports that there are, and that can tell what it counts as ready.
pub fn check_names(config: &Config) -> Result<(), CliError> {
    for bot in config.bots.values() {
        let name = &bot.name;
        if let Some(other) = bot.transports.iter().find(|t| !NAMES.contains(&t.as_str())) {
            let names = NAMES.map(|name| format!("{name:?}")).join(" or ");
            return Err(CliError::Config(format!(
                "bots.{name}.transports: {other:?} is not {names}"
            )));
        }
        let in_a_room = bot.transports.iter().any(|transport| transport == "daily");
        let reaches_nobody = bot.provider == "local" && bot.machine.network == Network::None;
        if in_a_room && reaches_nobody {
            return Err(CliError::Config(format!(
                "bots.{name}.network: \"none\" keeps the bot from its room at Daily; \
                 \"internet\" lets it there"
            )));
        }
        // It sees its client, and nothing of what the bot makes of it.
        let blind = bot.transports.iter().any(|transport| transport == "websocket");
        if blind && bot.ready_when == ReadyWhen::Room {
            return Err(CliError::Config(format!(
                "bots.{name}.ready_when: \"room\" needs transports that see who is in a room, and \
                 \"websocket\" does not; \"bot\" waits for the bot's own word"
            )));
        }
    }
    Ok(())
}

/// Opens those that some bot names, and those that living sessions name, whose bots left the
/// configuration: their rooms are still to be ended. One of these that cannot be opened stops
/// nobody.
pub async fn open(
    config: &Config,
    deployment: &Deployment,
    store: &dyn Store,
    tokens: SessionTokens,
) -> Result<Vec<Arc<dyn Transport>>, CliError> {
    let mut transports: Vec<Arc<dyn Transport>> = vec![Arc::new(Websocket::new(tokens))];
    let named = config.bots.values().flat_map(|bot| &bot.transports);
    let named: BTreeSet<&str> = named.map(String::as_str).collect();
    for name in &named {
        transports.extend(one(name, config, deployment).await?);
    }
    let mut left = BTreeSet::new();
    let seen = each_living(store, None, |session| {
        if !named.contains(session.transport.as_str()) && session.transport != "websocket" {
            left.insert(session.transport);
        }
    });
    seen.await.map_err(|error| CliError::Serve(chain(&error)))?;
    for name in left {
        tracing::warn!(transport = name, "no bot has this transport any more, but sessions do");
        match one(&name, config, deployment).await {
            Ok(opened) => transports.extend(opened),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(transport = name, error, "its rooms are left to end themselves");
            }
        }
    }
    Ok(transports)
}

/// Opens one; none under a name that there is not, or that is there anyway.
async fn one(
    name: &str,
    config: &Config,
    deployment: &Deployment,
) -> Result<Option<Arc<dyn Transport>>, CliError> {
    Ok(match name {
        "daily" => Some(Arc::new(daily(&config.daily, deployment).await?)),
        _ => None,
    })
}

async fn daily(config: &DailySection, deployment: &Deployment) -> Result<Daily, CliError> {
    let read = |key: &str, secret: &callbox_server::config::secret::SecretSource| {
        let text = secret.read().map_err(|why| CliError::Config(format!("daily.{key}: {why}")))?;
        Ok::<_, CliError>(text.reveal().trim().to_owned())
    };
    let api_url = config.api_url.as_deref().unwrap_or(API_URL);
    tracing::info!(api = api_url, "rooms are made at Daily");
    let webhook_secret = config.webhook_secret.as_ref();
    let webhook_secret = webhook_secret.map(|secret| read("webhook_secret", secret)).transpose()?;
    let api_key = read("api_key", &config.api_key)?;
    let began = Instant::now();
    loop {
        let http = http_client().map_err(|error| CliError::Serve(chain(&error)))?;
        let opened = Daily::open(
            http,
            DailyConfig {
                api_key: api_key.clone(),
                api_url: api_url.to_owned(),
                domain: config.domain.clone(),
                domain_id: config.domain_id.clone(),
                geo: config.geo.clone(),
                webhook_secret: webhook_secret.clone(),
                delete_rooms: config.delete_rooms,
                deployment: deployment.id.clone(),
            },
        );
        match opened.await {
            Ok(daily) => return Ok(daily),
            Err(Fault { kind: FaultKind::Refused | FaultKind::NotFound, detail }) => {
                return Err(CliError::Config(format!("daily: {detail}")));
            }
            Err(fault) if began.elapsed() >= PATIENCE => {
                return Err(CliError::Serve(format!(
                    "Daily does not say which domain the key is of: {fault}; with daily.domain and \
                     daily.domain_id it need not be asked"
                )));
            }
            Err(fault) => tracing::warn!(%fault, "Daily does not answer, trying again"),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// What speaks to vendors.
fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    let mut http = reqwest::Client::builder()
        .user_agent(concat!("callbox/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(5))
        // A redirect would send the key elsewhere, or make a GET of a POST.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(tls) = crate::tls::config() {
        http = http.tls_backend_preconfigured((*tls).clone());
    }
    http.build()
}
