//! What is said of networks, checked.

use std::{fmt::Display, str::FromStr};

use callbox_machines::{
    Network,
    local::{Ipv4Net, NetConfig},
};

use super::{
    ConfigError,
    raw::{RawLocalNetwork, RawNetwork},
    wrong,
};

/// What a bot's machines reach; an error says what is wrong with its `allow`.
pub(super) fn network(network: RawNetwork, allow: &[String]) -> Result<Network, String> {
    match network {
        RawNetwork::None if allow.is_empty() => Ok(Network::None),
        RawNetwork::None => Err("it takes `network = \"internet\"`, of which it is a part".into()),
        RawNetwork::Internet => {
            let allow = allow.iter().map(|entry| entry.parse()).collect::<Result<_, _>>()?;
            Ok(Network::Internet { allow })
        }
    }
}

/// `[local.network]`.
pub(super) fn local_network(raw: &RawLocalNetwork) -> Result<NetConfig, ConfigError> {
    let key = |field: &str| format!("local.network.{field}");
    let links: Ipv4Net = parsed(&raw.links).map_err(|problem| wrong(key("links"), problem))?;
    if !(8..=28).contains(&links.prefix_len()) {
        let problem = format!("{links} is not a block of /8 to /28");
        return Err(wrong(key("links"), problem));
    }
    for (field, value) in
        [("connections", raw.connections), ("new_connections_per_s", raw.new_connections_per_s)]
    {
        if value == 0 {
            return Err(wrong(key(field), "0 is no network at all"));
        }
    }
    Ok(NetConfig {
        links: links.trunc(),
        dns: all(&raw.dns).map_err(|problem| wrong(key("dns"), problem))?,
        deny: all(&raw.deny).map_err(|problem| wrong(key("deny"), problem))?,
        connections: raw.connections,
        new_connections_per_s: raw.new_connections_per_s,
    })
}

fn all<T: FromStr<Err: Display>>(texts: &[String]) -> Result<Vec<T>, String> {
    texts.iter().map(|text| parsed(text)).collect()
}

fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}; machines have ipv4 only"))
}
