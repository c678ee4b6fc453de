//! Rooms at Daily.

use std::time::Duration;

use callbox_core::{Fault, FaultKind};
use callbox_server::{config::DailySection, store::Deployment};
use callbox_transports::{Daily, DailyConfig, daily::API_URL};
use tokio::time::{Instant, sleep};

use super::{http_client, read};
use crate::error::CliError;

/// How long a vendor that does not answer is asked again before the dispatcher gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks Daily which domain the key is of, unless that is configured.
pub(super) async fn open(
    config: &DailySection,
    deployment: &Deployment,
) -> Result<Daily, CliError> {
    let api_url = config.api_url.as_deref().unwrap_or(API_URL);
    tracing::info!(api = api_url, "rooms are made at Daily");
    let webhook_secret = config.webhook_secret.as_ref();
    let webhook_secret =
        webhook_secret.map(|secret| read("daily.webhook_secret", secret)).transpose()?;
    let api_key = read("daily.api_key", &config.api_key)?;
    let began = Instant::now();
    loop {
        let http = http_client(api_url)?;
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
