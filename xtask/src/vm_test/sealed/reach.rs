//! What a machine reaches: what its probe says, and what the listeners saw of it.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    call::Call,
    listeners::Arrival,
    report::Finding,
    stage::{GROUP, OPEN, RESOLVER, Stage, TCP, UDP},
};

/// Inside of every machine with a network: its way out, and where it asks for names.
const GATEWAY: &str = "10.0.2.2";
const NAMES: &str = "10.0.2.3";
/// Where a machine listens for others.
pub const OTHERS: u16 = 8099;
/// Where the probe's frames come from (`SOURCE_PORT` in `bots/probe/frames.py`); translation of
/// addresses keeps a port that is free.
const FRAMES: u16 = 4242;
/// For places that answer nothing. Those that answer do so at once.
const PATIENCE_S: u32 = 3;

/// What one machine's network lets through.
pub struct Allowed {
    pub tcp: Vec<(&'static str, u16)>,
    pub udp: Vec<(&'static str, u16)>,
    pub icmp: Vec<&'static str>,
}

impl Allowed {
    /// The internet.
    pub fn all() -> Allowed {
        let every = |ports: &[u16]| -> Vec<(&'static str, u16)> {
            OPEN.iter().flat_map(|to| ports.iter().map(move |port| (*to, *port))).collect()
        };
        let names = vec![(NAMES, 53)];
        let tcp = [every(&TCP), names.clone()].concat();
        Allowed { tcp, udp: [every(&UDP), names].concat(), icmp: OPEN.to_vec() }
    }

    /// One port of one place.
    pub fn one() -> Allowed {
        Allowed { tcp: vec![(OPEN[0], 80)], udp: Vec::new(), icmp: Vec::new() }
    }

    fn has(&self, way: &str, address: &str, port: Option<u16>) -> bool {
        match (way, port) {
            ("tcp", Some(port)) => self.tcp.contains(&(address, port)),
            ("udp", Some(port)) => self.udp.contains(&(address, port)),
            _ => self.icmp.contains(&address),
        }
    }

    /// Whether the listeners may have seen this.
    fn explains(&self, Arrival { way, to, .. }: &Arrival) -> bool {
        let address = to.ip().to_string();
        // Who asks the resolver inside arrives at the one outside.
        let names = address == RESOLVER && to.port() == 53;
        (names && self.udp.contains(&(NAMES, 53))) || self.has(way, &address, Some(to.port()))
    }
}

/// Something to try: its group, how, where, and at which port.
struct Try {
    class: &'static str,
    way: &'static str,
    address: String,
    port: Option<u16>,
}

/// Everything that one machine tries.
pub struct Tries {
    all: Vec<Try>,
}

impl Tries {
    /// Forbidden places, by every way; the dispatcher's port at the host's addresses; the other
    /// machine's addresses; and the places that are allowed to somebody.
    pub fn all(dispatcher: u16, machines: &[String]) -> anyhow::Result<Tries> {
        let mut tries = Tries { all: Vec::new() };
        for target in Stage::forbidden()? {
            let address = target.address.to_string();
            let own = target.class == "this host";
            // To itself, this is not the host; that it is not the host's shows at the dispatcher's.
            let more = if own { vec![dispatcher] } else { Vec::new() };
            tries.add(target.class, &address, &[&TCP[..], &more].concat(), &UDP);
            if let IpAddr::V4(v4) = target.address
                && !v4.is_loopback()
            {
                // The same place in the words of IPv6.
                tries.tcp(target.class, &format!("::ffff:{v4}"), &[80]);
                tries.tcp("anything by ipv6", &format!("64:ff9b::{v4}"), &[80]);
            }
        }
        for inside in [GATEWAY, NAMES, "169.254.1.1"] {
            tries.add("the host through gateways", inside, &[22, 53, 80, dispatcher], &UDP);
        }
        for machine in machines {
            tries.add("other machines", machine, &[8080, OTHERS], &[8080, OTHERS]);
        }
        for address in ["fe80::1%eth0", "fe80::2%eth0"] {
            tries.tcp("link-local, metadata", address, &[80]);
        }
        for group in ["224.0.0.251", "239.1.1.1", "255.255.255.255", "10.0.2.255", "192.0.2.255"] {
            tries.udp("multicast, broadcast", group, &[GROUP.1, UDP[1]]);
        }
        tries.udp("multicast, broadcast", "ff02::1%eth0", &[UDP[1]]);
        for open in OPEN {
            tries.add("the internet", open, &TCP, &UDP);
        }
        Ok(tries)
    }

    fn add(&mut self, class: &'static str, address: &str, tcp: &[u16], udp: &[u16]) {
        self.tcp(class, address, tcp);
        self.udp(class, address, udp);
        let loopback = address.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        // Its own loopback and its own way out answer pings: that is the machine's own network.
        if !address.contains(':') && !loopback && class != "the host through gateways" {
            self.push(class, "icmp", address, None);
        }
    }

    fn tcp(&mut self, class: &'static str, address: &str, ports: &[u16]) {
        ports.iter().for_each(|port| self.push(class, "tcp", address, Some(*port)));
    }

    fn udp(&mut self, class: &'static str, address: &str, ports: &[u16]) {
        ports.iter().for_each(|port| self.push(class, "udp", address, Some(*port)));
    }

    fn push(&mut self, class: &'static str, way: &'static str, address: &str, port: Option<u16>) {
        self.all.push(Try { class, way, address: address.to_owned(), port });
    }

    fn question(&self) -> Value {
        let of = |way: &str| -> Vec<Value> {
            let some = self.all.iter().filter(|one| one.way == way);
            some.map(|one| match one.port {
                Some(port) => json!([one.address, port]),
                None => json!(one.address),
            })
            .collect()
        };
        json!({ "do": "reach", "patience_s": PATIENCE_S,
                "tcp": of("tcp"), "udp": of("udp"), "icmp": of("icmp") })
    }
}

/// Has a machine try everything, and judges by what it says and by who was seen.
pub fn reach(
    who: &str,
    call: &mut Call<'_>,
    stage: &Stage,
    tries: &Tries,
    allowed: &Allowed,
) -> anyhow::Result<Vec<Finding>> {
    stage.seen.take();
    let answer = call.ask(&tries.question())?;
    let tried = answer["tried"].as_array().context("the probe tried nothing")?;
    let mut found = Vec::new();
    for Try { class, way, address, port } in &tries.all {
        let place = port.map_or(json!(address), |port| json!([address, port]));
        let one = tried.iter().find(|one| one["way"] == *way && one["place"] == place);
        let said = one.and_then(|one| one["said"].as_str()).unwrap_or("it did not try");
        let may = allowed.has(way, address, *port);
        // A user may not ping. Whether others may is seen by the one who is root.
        let cannot = may && *way == "icmp" && said == "Permission denied";
        let ok = one.is_some() && (may == (said == "reached") || cannot);
        let class =
            if may { format!("{who}: allowed: {class}") } else { format!("{who}: {class}") };
        let port = port.map(|port| format!(" {port}")).unwrap_or_default();
        found.push(Finding::new("reach", class, format!("{way} {address}{port}"), said, ok));
    }
    found.push(nobody_else(who, "what listeners saw", &stage.seen.take(), |one| {
        allowed.explains(one)
    }));
    Ok(found)
}

/// Has a machine pretend to be others. Its own address is the control: that arrives.
pub fn spoof(
    who: &str,
    call: &mut Call<'_>,
    stage: &Stage,
    own: &str,
    others: &[String],
    frames: bool,
) -> anyhow::Result<Vec<Finding>> {
    let mut from: Vec<String> = Stage::forbidden()?.iter().map(|t| t.address.to_string()).collect();
    from.extend(others.iter().cloned());
    from.extend([OPEN[1], GATEWAY, "10.0.2.16"].map(str::to_owned));
    from.retain(|source| source != own);
    let to = json!([
        [OPEN[0], UDP[1]],
        ["192.0.2.2", UDP[1]],
        ["169.254.169.254", UDP[1]],
        ["2001:db8::1", UDP[1]],
        ["2001:db8::2", UDP[1]]
    ]);
    stage.seen.take();
    let answer = call.ask(&json!({ "do": "spoof", "from": from, "to": to }))?;
    let sent = answer["tried"].as_array().context("the probe tried nothing")?;
    let frames_sent = sent.iter().filter(|one| one["way"] == "frame" && one["said"] == "sent");
    let frames_sent = frames_sent.count();
    let may = if frames { "it can send frames" } else { "a user cannot send frames" };
    let said = format!("{frames_sent} of {} sent", sent.len());
    let mut found = vec![Finding::new("spoof", who, may, said, (frames_sent > 0) == frames)];
    // The control comes last, so what was sent before it has arrived or never will.
    call.ask(&json!({ "do": "spoof", "from": [own], "to": [[OPEN[0], UDP[1]]] }))?;
    call.ask(&json!({ "do": "reach", "udp": [[OPEN[0], UDP[1]]] }))?;
    let came = stage.seen.take();
    let own_words = format!("spoofed {own}");
    // Frames are made by hand, from a port that no datagram gets by itself.
    let of_whom = |one: &&Arrival| !frames || one.from == FRAMES;
    let arrived = came.iter().filter(of_whom).any(|one| one.said == own_words);
    let said = if arrived { "it arrives" } else { "it does not arrive" };
    found.push(Finding::new("spoof", who, "control: its own address", said, arrived));
    let others = came.into_iter().filter(|one| one.said.starts_with("spoofed"));
    let what = format!("{} datagrams and frames from others", sent.len());
    found.push(nobody_else(who, &what, &others.collect(), |one| one.said == own_words));
    Ok(found)
}

fn nobody_else(
    who: &str,
    what: &str,
    came: &BTreeSet<Arrival>,
    explained: impl Fn(&Arrival) -> bool,
) -> Finding {
    let unexplained = came.iter().filter(|one| !explained(one));
    let unexplained: Vec<String> =
        unexplained.map(|Arrival { way, to, said, .. }| format!("{way} {to} {said:?}")).collect();
    let ok = unexplained.is_empty();
    let said = if ok { "nothing else".to_owned() } else { unexplained.join(", ") };
    Finding::new("seen", who, what, said, ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(way: &'static str, to: &str, said: &str) -> Arrival {
        Arrival { way, to: to.parse().expect("an address"), said: said.to_owned(), from: 0 }
    }

    #[test]
    fn who_was_seen_beyond_what_is_allowed_is_found() {
        let allowed = came("tcp", "203.0.113.7:80", "");
        let (all, one) = (Allowed::all(), Allowed::one());
        assert!(all.explains(&allowed) && one.explains(&allowed));
        for more in [came("tcp", "203.0.113.7:443", ""), came("udp", "203.0.113.7:9000", "")] {
            assert!(all.explains(&more) && !one.explains(&more), "{more:?}");
        }
        // The resolver is reached through the place inside only, and by whom may ask it.
        let names = came("udp", "198.51.100.53:53", "");
        assert!(all.explains(&names) && !one.explains(&names));
        assert!(!all.explains(&came("udp", "198.51.100.53:9000", "")));
        for never in [came("tcp", "169.254.169.254:80", ""), came("udp", "192.0.2.2:9000", "")] {
            assert!(!all.explains(&never), "{never:?}");
            let seen = BTreeSet::from([allowed.clone(), never]);
            let finding = nobody_else("internet", "seen", &seen, |one| all.explains(one));
            assert!(!finding.ok && !finding.said.contains("203.0.113.7"), "{finding:?}");
        }
    }

    #[test]
    fn everything_is_tried_by_every_way_and_at_the_dispatchers_port() {
        let tries = Tries::all(7860, &["240.99.0.1".to_owned()]).expect("addresses");
        let has = |way, address: &str, port| {
            tries
                .all
                .iter()
                .any(|one| (one.way, one.address.as_str(), one.port) == (way, address, port))
        };
        assert!(has("tcp", "192.0.2.2", Some(7860)) && has("tcp", "2001:db8::2", Some(7860)));
        assert!(has("icmp", "169.254.169.254", None) && has("udp", "fd00:ec2::254", Some(9000)));
        assert!(has("tcp", "::ffff:10.9.9.9", Some(80)) && has("udp", "240.99.0.1", Some(OTHERS)));
        assert!(!has("icmp", "127.0.0.1", None), "that is the machine itself");
    }
}
