//! What machines with a network need of this host. Without it, all others run as well.

use super::Check;
use crate::net::way::{NOT_BY_PASST, Way, way};
use crate::net::{NetConfig, NetError, resolvers};

pub fn checks(config: &NetConfig) -> Vec<Check> {
    let way = way();
    let mut checks = vec![match &way {
        Way::Namespaces(_) => {
            Check::ok(NAME, "a namespace for each machine, with rules of nftables")
        }
        Way::Passt(_) => Check::ok(NAME, "passt, as this is not root").with_hint(NOT_BY_PASST),
        Way::None(why) => {
            Check::ok(NAME, "none: only bots with `network = \"none\"` can run").with_hint(why)
        }
    }];
    if !matches!(way, Way::None(_)) {
        checks.push(names(resolvers(config)));
    }
    if matches!(way, Way::Namespaces(_)) {
        checks.push(forwarding());
    }
    checks
}

const NAME: &str = "network";

fn names(resolvers: Result<Vec<std::net::Ipv4Addr>, NetError>) -> Check {
    let name = "names";
    match resolvers {
        Ok(some) if !some.is_empty() => {
            let some: Vec<_> = some.iter().map(ToString::to_string).collect();
            Check::ok(name, format!("machines with a network ask {}", some.join(", ")))
        }
        Ok(_) => Check::ok(name, "machines cannot ask for names: this host's resolver is private")
            .with_hint("name one: [local.network] dns = [\"…\"]"),
        Err(error) => Check::bad(name, error.to_string(), "correct local.network.dns"),
    }
}

fn forwarding() -> Check {
    let name = "forwarding";
    let setting = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    if setting.trim() == "1" {
        return Check::ok(name, "on");
    }
    Check::ok(name, "off")
        .with_hint("the first machine with a network turns it on, and the log says so")
}
