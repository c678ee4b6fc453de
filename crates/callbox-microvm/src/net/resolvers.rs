//! Whom machines ask for names.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

use super::{NetConfig, NetError, never};

/// Where the host's own are listed.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// More are never asked by anybody.
const MOST: usize = 3;

/// The resolvers for machines: the configured ones, else those of the host that are on the
/// internet. None is no error: machines then reach addresses, but cannot ask for names.
///
/// # Errors
/// [`NetError::Config`] if a configured one is an address of this host, which no machine reaches.
pub fn choose(config: &NetConfig) -> Result<Vec<Ipv4Addr>, NetError> {
    if config.dns.is_empty() {
        let text = std::fs::read_to_string(Path::new(RESOLV_CONF)).unwrap_or_default();
        return Ok(public(&text));
    }
    if let Some(own) = config.dns.iter().find(|address| is_own(**address)) {
        return Err(NetError::Config(format!(
            "{own} answers for names on this host itself, which no machine reaches; \
             hint: name the resolver that it asks in turn"
        )));
    }
    Ok(config.dns.clone())
}

/// Those of a `resolv.conf` that a machine may reach anyway.
fn public(resolv_conf: &str) -> Vec<Ipv4Addr> {
    let named = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        match address.parse().ok()? {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    });
    named.filter(|address| never::holds((*address).into()).is_none()).take(MOST).collect()
}

/// Only own addresses can be bound; the port is any free one.
fn is_own(address: Ipv4Addr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resolvers_on_the_internet_are_taken_from_the_host() {
        let text = "# nameserver 4.4.4.4\nsearch x\nnameserver 127.0.0.53\nnameserver 9.9.9.9\n\
                    nameserver 2620:fe::fe\nnameserver 192.168.1.1\nnameserver 1.1.1.1 # two\n";
        assert_eq!(public(text), [Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1)]);
        assert_eq!(public(""), [Ipv4Addr::UNSPECIFIED; 0]);
    }

    #[test]
    fn a_resolver_on_the_host_itself_is_refused() {
        let config = NetConfig { dns: vec![Ipv4Addr::LOCALHOST], ..NetConfig::default() };
        let error = choose(&config).expect_err("it is the host").to_string();
        assert!(error.contains("127.0.0.1") && error.contains("hint"), "{error}");
    }
}
