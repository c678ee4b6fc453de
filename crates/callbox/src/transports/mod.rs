//! The transports that bots name, and those that living sessions still have.

mod daily;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use callbox_core::ReadyWhen;
use callbox_machines::Network;
use callbox_server::{
    config::{Bot, Config, LivekitSection, WebrtcSection, secret::SecretSource},
    store::{Deployment, Store, each_living},
};
use callbox_transports::{Livekit, LivekitServer, SessionTokens, Transport, Webrtc, Websocket};

use crate::api_client::is_loopback;
use crate::error::{CliError, chain};

/// All that there are.
const NAMES: [&str; 4] = ["websocket", "daily", "livekit", "webrtc"];
/// Those whose room is elsewhere: bots go there by themselves.
const ELSEWHERE: [&str; 2] = ["daily", "livekit"];

/// That every bot names transports that there are, and that can tell what it counts as ready.
pub fn check_names(config: &Config) -> Result<(), CliError> {
    config.bots.values().try_for_each(|bot| {
        bot.transports.iter().try_for_each(|transport| check(bot, transport, config))
    })
}

fn check(bot: &Bot, transport: &str, config: &Config) -> Result<(), CliError> {
    let wrong = |key: &str, problem: String| {
        Err(CliError::Config(format!("bots.{}.{key}: {problem}", bot.name)))
    };
    if !NAMES.contains(&transport) {
        let names = NAMES.map(|name| format!("{name:?}")).join(" or ");
        return wrong("transports", format!("{transport:?} is not {names}"));
    }
    if transport == "livekit" && config.livekit.is_none() {
        return wrong("transports", "\"livekit\" needs a server: livekit.url".to_owned());
    }
    let elsewhere = ELSEWHERE.contains(&transport);
    if elsewhere && bot.provider == "local" && bot.machine.network == Network::None {
        let problem = format!(
            "\"none\" keeps the bot from its room ({transport}); \"internet\" lets it there"
        );
        return wrong("network", problem);
    }
    // The others see their client, and nothing of what the bot makes of it.
    if !elsewhere && bot.ready_when == ReadyWhen::Room {
        let problem = format!(
            "\"room\" needs transports that see who is in a room, and {transport:?} does not; \
             \"bot\" waits for the bot's own word"
        );
        return wrong("ready_when", problem);
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
        "daily" => Some(Arc::new(daily::open(&config.daily, deployment).await?)),
        "livekit" => match &config.livekit {
            Some(section) => Some(Arc::new(livekit(section, &deployment.id)?)),
            None => return Err(CliError::Config("livekit.url: no server is named".to_owned())),
        },
        "webrtc" => Some(Arc::new(webrtc(&config.webrtc)?)),
        _ => None,
    })
}

/// What speaks to the vendor that is at this address.
fn http_client(at: &str) -> Result<reqwest::Client, CliError> {
    let mut http = reqwest::Client::builder()
        .user_agent(concat!("callbox/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(5))
        // A redirect would send the key elsewhere, or make a GET of a POST.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(tls) = crate::tls::config() {
        http = http.tls_backend_preconfigured((*tls).clone());
    }
    if reqwest::Url::parse(at).is_ok_and(|url| is_loopback(&url)) {
        // A proxy from the environment cannot reach this host's loopback.
        http = http.no_proxy();
    }
    http.build().map_err(|error| CliError::Serve(chain(&error)))
}

fn livekit(section: &LivekitSection, deployment: &str) -> Result<Livekit, CliError> {
    let server = LivekitServer {
        url: section.url.clone(),
        api_url: section.api_url.clone(),
        api_key: read("livekit.api_key", &section.api_key)?,
        api_secret: read("livekit.api_secret", &section.api_secret)?,
    };
    let http = http_client(section.api_url.as_ref().unwrap_or(&section.url))?;
    let livekit = Livekit::new(http, server, deployment);
    livekit.map_err(|error| CliError::Config(format!("livekit: {}", chain(&error))))
}

fn webrtc(section: &WebrtcSection) -> Result<Webrtc, CliError> {
    let secret = match section.has_turn() {
        true => read("webrtc.turn_secret", &section.turn_secret)?,
        false => String::new(),
    };
    Ok(Webrtc::new(section.ice_servers.clone(), secret))
}

fn read(key: &str, source: &SecretSource) -> Result<String, CliError> {
    let secret = source.read().map_err(|why| CliError::Config(format!("{key}: {why}")))?;
    match secret.reveal().trim() {
        "" => Err(CliError::Config(format!("{key}: it is empty"))),
        text => Ok(text.to_owned()),
    }
}
