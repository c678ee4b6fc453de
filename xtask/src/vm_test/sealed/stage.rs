//! The stage: a host that is a namespace of its own, in which the dispatcher runs, and an internet
//! that answers at every address, forbidden ones too, so that only walls can keep a machine from
//! them. Nothing of the host that runs the test is touched.
//!
//! ```text
//! machine ─ its network ─ HOST (the dispatcher, its addresses) ── eth0 ── INTERNET (the rest)
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;

use crate::place::Place;

use super::{
    listeners::{At, Listeners, Seen, answers},
    report::Finding,
};

/// Ports that are listened on, everywhere.
pub const TCP: [u16; 3] = [53, 80, 443];
pub const UDP: [u16; 2] = [53, 9000];
/// What is sent to groups and to everybody is listened for here.
pub const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);

/// Places on the internet, and the resolver that the configuration names.
pub const OPEN: [&str; 2] = ["203.0.113.7", "198.51.100.7"];
pub const RESOLVER: &str = "198.51.100.53";
/// The host's own addresses, beside those of its network.
const HOST: &[&str] = &["10.77.0.1/32", "203.0.113.200/32", "fd77::1/128"];
/// How host and internet are linked.
const LINK: [&str; 2] = ["192.0.2.2/24", "2001:db8::2/64"];
const GATEWAY: [&str; 2] = ["192.0.2.1/24", "2001:db8::1/64"];
/// A block that the configuration denies.
pub const DENIED: &str = "203.0.113.64/26";

/// Kinds of places that no machine may reach, with what of them the internet has.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "link-local, metadata",
        &["169.254.169.254", "169.254.9.9", "168.63.129.16", "100.100.100.200", "fd00:ec2::254"],
    ),
    (
        "private ranges",
        &["10.9.9.9", "172.16.9.9", "192.168.9.9", "100.64.9.9", "fc00::9", "fd00::9"],
    ),
    ("not the internet", &["192.0.0.9", "198.18.9.9", "240.9.9.9"]),
    ("denied by the operator", &["203.0.113.66"]),
];
/// Forbidden resolvers: they answer the host, on port 53.
const RESOLVERS: &[&str] = &["10.9.9.53", "169.254.169.253"];

/// A place that no machine may reach, and that is there.
#[derive(Clone, Debug)]
pub struct Target {
    pub class: &'static str,
    pub address: IpAddr,
}

pub struct Stage {
    pub host: Place,
    internet: Place,
    /// Who came to anybody.
    pub seen: Seen,
    _listeners: [Listeners; 2],
}

impl Stage {
    pub fn set() -> anyhow::Result<Stage> {
        let (host, internet) = (Place::new()?, Place::new()?);
        let link = format!("link add eth0 type veth peer name eth0 netns {}", internet.path());
        host.ip(&link)?;
        for (place, own, more) in [(&host, LINK, HOST), (&internet, GATEWAY, &[][..])] {
            place.ip(&format!("addr add {} dev eth0", own[0]))?;
            place.ip(&format!("addr add {} dev eth0 nodad", own[1]))?;
            place.ip("link set eth0 up")?;
            for address in more {
                place.ip(&format!("addr add {address} dev lo"))?;
            }
        }
        let there = on_the_internet()?;
        for address in &there {
            internet.ip(&format!("addr add {address} dev lo"))?;
        }
        host.ip("route add default via 192.0.2.1")?;
        host.ip("-6 route add default via 2001:db8::1")?;
        let seen = Seen::default();
        let listen = |place: &Place, addresses: &[IpAddr], group| {
            let at = At { tcp: &TCP, udp: &UDP, addresses, group };
            place.run(|| Listeners::open(&at, &seen))
        };
        let gateway = addresses(&GATEWAY)?;
        let listeners = [
            listen(&host, &own_addresses()?, Some(GROUP))?,
            listen(&internet, &[there, gateway].concat(), None)?,
        ];
        Ok(Stage { host, internet, seen, _listeners: listeners })
    }

    /// Everything that no machine may reach.
    pub fn forbidden() -> anyhow::Result<Vec<Target>> {
        let target = |class| move |address| Target { class, address };
        let mut all: Vec<Target> = own_addresses()?.into_iter().map(target("this host")).collect();
        for (class, some) in FORBIDDEN {
            all.extend(addresses(some)?.into_iter().map(target(class)));
        }
        all.extend(addresses(RESOLVERS)?.into_iter().map(target("forbidden resolvers")));
        all.extend(addresses(&GATEWAY[1..])?.into_iter().map(target("anything by ipv6")));
        Ok(all)
    }

    /// That everything a machine is tried on is there: the host reaches it, by each way.
    pub fn control(&self) -> anyhow::Result<Vec<Finding>> {
        let mut targets = Stage::forbidden()?;
        let open = addresses(&OPEN)?.into_iter().chain(addresses(&[RESOLVER])?);
        targets.extend(open.map(|address| Target { class: "the internet", address }));
        let ports = TCP.iter().map(|port| ("tcp", *port));
        let ways: Vec<_> = ports.chain(UDP.iter().map(|port| ("udp", *port))).collect();
        let mut found = self.host.run(|| {
            let mut found = Vec::new();
            for Target { class, address } in &targets {
                for (way, port) in &ways {
                    let to = SocketAddr::new(*address, *port);
                    let ok = answers(way, to);
                    let said =
                        if ok { "the host reaches it" } else { "the host does not reach it" };
                    found.push(Finding::new("control", *class, format!("{way} {to}"), said, ok));
                }
            }
            Ok(found)
        })?;
        found.extend(self.groups_are_heard()?);
        self.seen.take();
        Ok(found)
    }

    /// What a neighbour of the host sends to a group and to everybody arrives.
    fn groups_are_heard(&self) -> anyhow::Result<Vec<Finding>> {
        let (group, port) = GROUP;
        let everybody = [group, Ipv4Addr::BROADCAST, Ipv4Addr::new(192, 0, 2, 255)];
        self.internet.ip("route add 224.0.0.0/4 dev eth0")?;
        self.internet.ip("route add 255.255.255.255/32 dev eth0")?;
        self.internet.run(|| {
            let heard = everybody.map(|to| {
                let ok = answers("udp", SocketAddr::from((to, port)));
                let said = if ok { "the host hears a neighbour" } else { "the host hears nothing" };
                Finding::new(
                    "control",
                    "multicast, broadcast",
                    format!("udp {to}:{port}"),
                    said,
                    ok,
                )
            });
            Ok(heard.to_vec())
        })
    }
}

/// All addresses of the host, as they were given to it.
pub fn own_addresses() -> anyhow::Result<Vec<IpAddr>> {
    let loopback = addresses(&["127.0.0.1", "::1"])?;
    Ok([loopback, addresses(&LINK)?, addresses(HOST)?].concat())
}

fn on_the_internet() -> anyhow::Result<Vec<IpAddr>> {
    let forbidden = FORBIDDEN.iter().flat_map(|(_, some)| some.iter().copied());
    let open = OPEN.iter().copied().chain([RESOLVER]);
    addresses(&forbidden.chain(open).chain(RESOLVERS.iter().copied()).collect::<Vec<_>>())
}

fn addresses(written: &[&str]) -> anyhow::Result<Vec<IpAddr>> {
    let parse = |text: &&str| {
        let address = text.split_once('/').map_or(*text, |(address, _)| address);
        address.parse().with_context(|| format!("{text:?} is no address"))
    };
    written.iter().map(parse).collect()
}
