//! The transports, as the configuration has them.

use std::sync::Arc;

use callbox_core::ReadyWhen;
use callbox_server::config::{Bot, Config, LivekitSection, secret::SecretSource};
use callbox_transports::{Livekit, LivekitServer, SessionTokens, Transport, Webrtc, Websocket};

use crate::error::{CliError, chain};

/// Those that see who is in a room.
const SEE_WHO_IS_THERE: [&str; 1] = ["livekit"];

/// That a bot names transports that there are, and that are configured.
pub fn check(bot: &Bot, config: &Config) -> Result<(), CliError> {
    let wrong = |key: &str, problem: String| {
        Err(CliError::Config(format!("bots.{}.{key}: {problem}", bot.name)))
    };
    for name in &bot.transports {
        match name.as_str() {
            "websocket" | "webrtc" => {}
            "livekit" if config.livekit.is_some() => {}
            "livekit" => {
                return wrong("transports", "\"livekit\" needs a server: livekit.url".to_owned());
            }
            other => {
                let known = "\"websocket\", \"livekit\" or \"webrtc\"";
                return wrong("transports", format!("{other:?} is not {known}"));
            }
        }
        if bot.ready_when == ReadyWhen::Room && !SEE_WHO_IS_THERE.contains(&name.as_str()) {
            let problem = format!(
                "\"room\" needs transports that see who is in a room, and {name:?} does not; \
                 \"bot\" waits for the bot's own word"
            );
            return wrong("ready_when", problem);
        }
    }
    Ok(())
}

/// Opens all that are configured, whether or not a bot names them: sessions may be left whose
/// rooms are to be ended. Asks nothing of anybody.
pub fn open(
    config: &Config,
    deployment: &str,
    tokens: &SessionTokens,
) -> Result<Vec<Arc<dyn Transport>>, CliError> {
    let mut transports: Vec<Arc<dyn Transport>> =
        vec![Arc::new(Websocket::new(tokens.clone())), Arc::new(webrtc(config)?)];
    if let Some(section) = &config.livekit {
        transports.push(Arc::new(livekit(section, deployment)?));
    }
    Ok(transports)
}

fn livekit(section: &LivekitSection, deployment: &str) -> Result<Livekit, CliError> {
    let server = LivekitServer {
        url: section.url.clone(),
        api_url: section.api_url.clone(),
        api_key: read("livekit.api_key", &section.api_key)?,
        api_secret: read("livekit.api_secret", &section.api_secret)?,
    };
    let livekit = Livekit::new(server, deployment);
    livekit.map_err(|error| CliError::Config(format!("livekit: {}", chain(&error))))
}

fn webrtc(config: &Config) -> Result<Webrtc, CliError> {
    let section = &config.webrtc;
    let secret = match section.has_turn() {
        true => read("webrtc.turn_secret", &section.turn_secret)?,
        false => String::new(),
    };
    Ok(Webrtc::new(section.ice_servers.clone(), secret))
}

fn read(key: &str, source: &SecretSource) -> Result<String, CliError> {
    let secret = source.read().map_err(|why| CliError::Config(format!("{key}: {why}")))?;
    if secret.reveal().is_empty() {
        return Err(CliError::Config(format!("{key}: it is empty")));
    }
    Ok(secret.reveal().to_owned())
}
