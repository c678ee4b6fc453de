//! The provider `fly`, as the configuration has it.

use callbox_fly::{BASE_URL, Client, Prices, Token};
use callbox_machines::{Fly, fly::FlyConfig};
use callbox_server::{
    config::{Config, FlyPrices},
    store::Deployment,
};

use crate::error::{CliError, chain};

/// Asks nothing of Fly: whether it takes our token shows when the bots are prepared.
pub fn open(config: &Config, deployment: &Deployment, keeper: &str) -> Result<Fly, CliError> {
    let fly = &config.fly;
    if fly.apps.is_empty() {
        let hint = "name the app that machines are made in; `fly apps create` makes one";
        return Err(CliError::Config(format!("fly.apps: {hint}")));
    }
    let Some(public_url) = config.public_url.clone() else {
        let hint = "machines at Fly dial the dispatcher: say where they reach it";
        return Err(CliError::Config(format!("public_url: {hint}")));
    };
    let token = fly.token.read().map_err(|why| CliError::Config(format!("fly.token: {why}")))?;
    let api_url = fly.api_url.as_deref().unwrap_or(BASE_URL);
    let client = Client::new(api_url, &Token::new(token.reveal()));
    let client = client.map_err(|error| CliError::Config(format!("fly: {}", chain(&error))))?;
    tracing::info!(api = client.base(), apps = fly.apps.join(","), "machines are made at Fly");
    let authorities = fly.authorities.as_ref().map(|path| {
        std::fs::read_to_string(path).map_err(|source| CliError::File {
            doing: "read",
            path: path.clone(),
            source,
        })
    });
    let config = FlyConfig {
        apps: fly.apps.clone(),
        max_machines: fly.max_machines,
        public_url,
        authorities: authorities.transpose()?,
        deployment: deployment.id.clone(),
        orphan_after: config.orphan_after,
        prices: prices(&fly.prices),
        image_gb: fly.prices.image_gb,
        keeper: keeper.to_owned(),
    };
    Ok(Fly::new(client, config, &deployment.secret))
}

fn prices(of: &FlyPrices) -> Prices {
    let FlyPrices { as_of, shared_cpu, performance_cpu, memory_gb, rootfs_gb, regions, .. } =
        of.clone();
    Prices { as_of, shared_cpu, performance_cpu, memory_gb, rootfs_gb, regions }
}
