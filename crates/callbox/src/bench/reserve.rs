//! Waiting until a bot's reserve is full, so that each run finds it as a quiet dispatcher has it.

use std::time::{Duration, Instant};

use callbox_protocol::api::Info;

use crate::api_client::ApiClient;
use crate::error::CliError;

const LOOK: Duration = Duration::from_millis(100);

/// Waits.
pub async fn until_full(
    client: &ApiClient,
    bot: Option<&str>,
    patience: Duration,
) -> Result<(), CliError> {
    let begun = Instant::now();
    loop {
        let info = client.info().await?;
        let bot = name(&info, bot)?;
        let Some(level) = info.reserves.get(&bot) else {
            return Err(CliError::Usage(format!("the bot {bot:?} has no reserve")));
        };
        if level.ready >= level.target {
            return Ok(());
        }
        if begun.elapsed() > patience {
            let what = format!(
                "the reserve of {bot:?} still has {} of {} machines",
                level.ready, level.target
            );
            return Err(CliError::TooSlow { what, limit: patience });
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn name(info: &Info, bot: Option<&str>) -> Result<String, CliError> {
    match (bot, info.bots.as_slice()) {
        (Some(bot), _) => Ok(bot.to_owned()),
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => Err(CliError::Usage("name a bot with --bot: there is more than one".into())),
    }
}
