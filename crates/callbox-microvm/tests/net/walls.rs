//! What a machine reaches, and what reaches it.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use callbox_microvm::Network;
use callbox_microvm::net::{NetConfig, NetRecord, Networks, inner, remove};

use crate::place::{Guest, Place, ip};
use crate::stage::{
    DENIED, FORBIDDEN, HOST, INNER_NAME, NAME, OPEN, RESOLVER, Seen, TCP, UDP, answers,
    answers_after_all, connects, guest, listen, play, plug, seen,
};

#[test]
fn a_machine_reaches_the_internet_and_nothing_else() {
    play(async |stage| {
        for place in FORBIDDEN.into_iter().chain(HOST).chain(OPEN) {
            assert!(connects(place, TCP), "the host reaches {place}, or the test shows nothing");
        }
        let networks = stage.networks();
        let guest = guest(&networks, &[]).await;
        stage.came.lock().unwrap().clear();
        stage.intruded.lock().unwrap().clear();
        let reached = guest.place.run(|| {
            let mut reached = Vec::new();
            for place in OPEN {
                assert!(answers(place, UDP), "udp {place}");
                assert!(connects(place, TCP), "tcp {place}");
            }
            assert!(answers(inner::RESOLVER, 53), "names");
            let inside = [inner::GATEWAY, inner::RESOLVER, Ipv4Addr::new(169, 254, 1, 1)];
            for place in FORBIDDEN.into_iter().chain(HOST).chain(inside) {
                let source = Ipv4Addr::UNSPECIFIED;
                if connects(place, TCP) || answers_after_all(source, place, UDP) {
                    reached.push(place);
                }
            }
            reached
        });
        assert_eq!(reached, [Ipv4Addr::UNSPECIFIED; 0], "reached");
        assert_eq!(*stage.intruded.lock().unwrap(), [""; 0], "came to the host");
        let own = "192.0.2.2";
        let mut expected: Vec<_> = OPEN
            .iter()
            .flat_map(|to| [format!("udp {own} -> {to}:{UDP}"), format!("tcp {own} -> {to}:{TCP}")])
            .collect();
        expected.push(format!("udp {own} -> {RESOLVER}:53"));
        expected.sort();
        assert_eq!(seen(&stage.came, expected.len()), expected, "came to the internet");
    });
}

#[test]
fn an_allow_list_is_all_that_a_machine_reaches() {
    play(async |stage| {
        let networks = stage.networks();
        let [one, other] = OPEN;
        let some = guest(&networks, &[&format!("{one}:{TCP}"), &format!("{DENIED}")]).await;
        stage.came.lock().unwrap().clear();
        some.place.run(move || {
            assert!(connects(one, TCP));
            assert!(!connects(one, 80), "another port");
            assert!(!connects(other, TCP), "another address");
            assert!(!answers_after_all(Ipv4Addr::UNSPECIFIED, other, UDP), "another address");
            assert!(!answers_after_all(Ipv4Addr::UNSPECIFIED, inner::RESOLVER, 53), "names");
            assert!(!connects(DENIED, TCP), "allowed by the bot, denied by the host");
        });
        let inner = vec![INNER_NAME.parse().unwrap()];
        let refused = networks.make(&Network::Internet { allow: inner }).await.unwrap_err();
        assert!(refused.to_string().contains("10.9.9.9"), "{refused}");
        let named = guest(&networks, &[&format!("{NAME}:{TCP}")]).await;
        named.place.run(move || {
            assert!(connects(one, TCP));
            assert!(!connects(one, 80) && !connects(other, TCP));
            assert!(!answers_after_all(Ipv4Addr::UNSPECIFIED, inner::RESOLVER, 53), "names");
        });
        let block = guest(&networks, &["203.0.113.0/24"]).await;
        block.place.run(move || {
            assert!(connects(one, TCP) && connects(one, 80) && answers(one, UDP));
            assert!(!connects(other, TCP));
        });
        let came = stage.came.lock().unwrap().clone();
        let only = format!("-> {one}:");
        assert!(came.iter().all(|one| one.contains(&only)), "came to the internet: {came:?}");
    });
}

#[test]
fn nothing_comes_in_and_machines_do_not_meet() {
    play(async |stage| {
        let (networks, foreign) = (stage.networks(), stage.foreign_networks());
        let (mut guests, mut addresses) = (Vec::new(), Vec::new());
        for networks in [&networks, &networks, &foreign] {
            let plug = plug(networks, &[]).await;
            let NetRecord::Namespace { address, .. } = plug.record else { panic!("root") };
            addresses.push(address);
            guests.push(Guest::behind(plug));
        }
        let met = Seen::default();
        for guest in &guests {
            let met = Arc::clone(&met);
            guest.place.run(move || listen(&[inner::GUEST], &met));
        }
        stage.internet.ip("route add 240.99.0.0/16 via 192.0.2.2");
        stage.internet.ip("route add 10.0.2.0/24 via 192.0.2.2");
        let try_all = move || {
            for address in addresses {
                for port in [TCP, 80, 8080] {
                    assert!(!connects(address, port), "{address}:{port}");
                }
                assert!(!answers_after_all(Ipv4Addr::UNSPECIFIED, address, UDP), "{address}");
            }
        };
        try_all.clone()();
        stage.internet.run(try_all.clone());
        stage.internet.run(|| assert!(!connects(inner::GUEST, TCP)));
        for guest in &guests {
            guest.place.run(try_all.clone());
            guest.place.run(|| assert!(answers(OPEN[0], UDP), "and it still has its network"));
        }
        assert_eq!(*met.lock().unwrap(), [""; 0], "met");
    });
}

/// Whatever a guest writes to its card: only its own IPv4 gets as far as the host.
#[test]
fn a_machine_cannot_speak_as_another_nor_anything_but_ipv4() {
    play(async |stage| {
        let networks = stage.networks();
        let plug = plug(&networks, &[]).await;
        let NetRecord::Namespace { link, .. } = plug.record.clone() else { panic!("root") };
        let mut guest = Guest::behind(plug);
        guest.place.run(|| assert!(answers(OPEN[0], UDP)));
        let before = received(&link);
        for arguments in ["addr add 10.0.2.99/24 dev eth0", "addr add 198.51.100.99/32 dev eth0"] {
            guest.place.ip(arguments);
        }
        guest.place.ip("-6 addr add 2001:db8::15/64 dev eth0 nodad");
        guest.place.ip(&format!(
            "-6 neigh add 2001:db8::1 lladdr {} dev eth0",
            inner::written(&inner::GATEWAY_MAC)
        ));
        guest.place.run(|| {
            for spoofed in ["10.0.2.99", "198.51.100.99"] {
                assert!(!answers_after_all(spoofed.parse().unwrap(), OPEN[0], UDP), "{spoofed}");
            }
            let socket = UdpSocket::bind("[2001:db8::15]:0").unwrap();
            let _ = socket.send_to(b"six", "[2001:db8::1]:9000");
        });
        for frame in frames() {
            guest.inject(&frame);
        }
        // Behind all of them, and through the same queue.
        guest.place.run(|| assert!(answers(OPEN[0], UDP)));
        assert_eq!(received(&link) - before, 1, "frames that got as far as the host");
        let came = stage.came.lock().unwrap().clone();
        assert!(came.iter().all(|one| one.starts_with("udp 192.0.2.2 ")), "{came:?}");
    });
}

/// Frames that no kernel would send: another's hardware address, other protocols, tagged ones,
/// somebody else's address, options that route.
fn frames() -> Vec<Vec<u8>> {
    let ethernet = |source: [u8; 6], kind: [u8; 2], rest: &[u8]| {
        let mut frame = [&inner::GATEWAY_MAC[..], &source[..], &kind[..], rest].concat();
        frame.resize(60.max(frame.len()), 0);
        frame
    };
    let own = inner::GUEST_MAC;
    let to = OPEN[0].octets();
    let udp = |source: [u8; 4], options: &[u8]| {
        let words = 5 + u8::try_from(options.len() / 4).unwrap();
        let mut header =
            vec![0x40 | words, 0, 0, 29 + options.len() as u8, 0, 1, 0, 0, 64, 17, 0, 0];
        header.extend(source.into_iter().chain(to).chain(options.iter().copied()));
        let sum = header
            .chunks(2)
            .fold(0_u32, |sum, two| sum + u32::from(two[0]) * 256 + u32::from(two[1]));
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend([0x40, 0, 0x23, 0x28, 0, 9, 0, 0, b'x']);
        header
    };
    let guest = inner::GUEST.octets();
    let route = [0x83, 7, 4, 10, 9, 9, 9, 0];
    vec![
        ethernet([2, 0, 0, 0, 0, 1], [8, 0], &udp(guest, &[])),
        ethernet(own, [8, 0], &udp([10, 0, 2, 77], &[])),
        ethernet(own, [8, 0], &udp([127, 0, 0, 1], &[])),
        ethernet(own, [8, 0], &udp(guest, &route)),
        ethernet(own, [0x81, 0], &[&[0, 5, 8, 0], &udp(guest, &[])[..]].concat()),
        ethernet(own, [0x88, 0xa8], &[&[0, 5, 8, 0], &udp(guest, &[])[..]].concat()),
        ethernet(own, [0x86, 0xdd], &[0x60, 0, 0, 0, 0, 0, 58, 255]),
        ethernet(own, [0x88, 0xcc], &[2, 7, 4]),
        ethernet(own, [0x88, 0x64], &[0x11, 0]),
        ethernet(own, [0, 40], &[0xaa, 0xaa, 3]),
    ]
}

/// If the rules in a machine's namespace were gone, the host's own would still hold.
#[test]
fn the_hosts_rules_are_a_wall_by_themselves() {
    play(async |stage| {
        let networks = stage.networks();
        let kept = plug(&networks, &[]).await;
        let NetRecord::Namespace { link, address, .. } = &kept.record else { panic!("root") };
        let group = shown(link)["group"].as_str().unwrap().to_owned();
        let rogue = Place::new();
        ip(&format!("link add cbx-rogue type veth peer name up netns {}", rogue.id));
        ip(&format!("link set cbx-rogue group {group} up"));
        ip("route add 240.99.9.9/32 dev cbx-rogue");
        for arguments in [
            "addr add 240.99.9.9/32 dev up",
            "addr add 240.99.9.10/32 dev up",
            "link set dev up up",
        ] {
            rogue.ip(arguments);
        }
        let mac = |link| shown(link)["address"].as_str().unwrap().to_owned();
        let rogue_mac = rogue.run(move || mac("up"));
        ip(&format!("neigh add 240.99.9.9 lladdr {rogue_mac} dev cbx-rogue"));
        rogue.ip("route add default via 169.254.1.1 dev up onlink src 240.99.9.9");
        rogue.ip(&format!("neigh add 169.254.1.1 lladdr {} dev up", mac("cbx-rogue")));
        stage.came.lock().unwrap().clear();
        stage.intruded.lock().unwrap().clear();
        let address = *address;
        rogue.run(move || {
            assert!(answers(OPEN[0], UDP), "it is a machine like others");
            assert!(answers(RESOLVER, 53), "names");
            for place in FORBIDDEN.into_iter().chain(HOST).chain([address]) {
                let source = Ipv4Addr::UNSPECIFIED;
                assert!(!connects(place, TCP), "tcp {place}");
                assert!(!answers_after_all(source, place, UDP), "udp {place}");
            }
            let spoofed = Ipv4Addr::new(240, 99, 9, 10);
            assert!(!answers_after_all(spoofed, OPEN[0], UDP), "as another");
        });
        rogue.run(|| listen(&[Ipv4Addr::new(240, 99, 9, 9)], &Seen::default()));
        assert!(!connects(Ipv4Addr::new(240, 99, 9, 9), TCP), "the host gets in");
        stage.internet.ip("route add 240.99.0.0/16 via 192.0.2.2");
        let in_from_there = || connects(Ipv4Addr::new(240, 99, 9, 9), TCP);
        assert!(!stage.internet.run(in_from_there), "the internet gets in");
        assert_eq!(*stage.intruded.lock().unwrap(), [""; 0], "came to the host");
        assert_eq!(seen(&stage.came, 2).len(), 2, "{:?}", stage.came);
    });
}

/// And the other way round: without the host's rules, and with a way to its inner address.
#[test]
fn the_rules_of_a_namespace_are_a_wall_by_themselves() {
    play(async |stage| {
        let networks = stage.networks();
        let plug = plug(&networks, &[]).await;
        let NetRecord::Namespace { link, .. } = plug.record.clone() else { panic!("root") };
        let guest = Guest::behind(plug);
        let met = Seen::default();
        let seen = Arc::clone(&met);
        guest.place.run(move || listen(&[inner::GUEST], &seen));
        let flushed = std::process::Command::new("nft").args(["flush", "ruleset"]).status();
        assert!(flushed.unwrap().success());
        ip(&format!("route add {} dev {link}", inner::GUEST));
        ip(&format!("neigh add {} lladdr 02:cb:00:00:00:03 dev {link}", inner::GUEST));
        assert!(!connects(inner::GUEST, TCP), "tcp comes in");
        assert!(!answers_after_all(Ipv4Addr::UNSPECIFIED, inner::GUEST, UDP), "udp comes in");
        guest.place.run(|| {
            for place in FORBIDDEN.into_iter().chain(HOST) {
                let source = Ipv4Addr::UNSPECIFIED;
                assert!(!connects(place, TCP), "tcp {place}");
                assert!(!answers_after_all(source, place, UDP), "udp {place}");
            }
        });
        assert_eq!(*met.lock().unwrap(), [""; 0], "met");
        assert_eq!(*stage.intruded.lock().unwrap(), [""; 0], "came to the host");
    });
}

#[test]
fn a_machine_cannot_fill_the_hosts_memory_of_connections() {
    play(async |stage| {
        let config = NetConfig { connections: 20, new_connections_per_s: 1000, ..stage.config() };
        let networks = Networks::open(stage.data.path(), config).unwrap();
        let plug = plug(&networks, &[]).await;
        let record = plug.record.clone();
        let NetRecord::Namespace { address, .. } = record else { panic!("root") };
        let guest = Guest::behind(plug);
        let open = guest.place.run(|| {
            let streams = (0..40).map(|_| {
                let to = std::net::SocketAddr::from((OPEN[0], TCP));
                std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_millis(100))
            });
            streams.filter_map(Result::ok).collect::<Vec<_>>()
        });
        assert_eq!(open.len(), 20);
        assert!(remembered(address) >= 20);
        remove(&record).await.unwrap();
        assert_eq!(remembered(address), 0, "connections of a machine that is gone");
    });
}

/// How many connections from `address` the host remembers.
fn remembered(address: Ipv4Addr) -> usize {
    let text = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
    text.lines().filter(|line| line.contains(&format!("src={address} "))).count()
}

/// What came in from a machine, in frames.
fn received(link: &str) -> u64 {
    shown(link)["stats64"]["rx"]["packets"].as_u64().unwrap()
}

/// What `ip` shows of a link in the namespace of the calling thread.
fn shown(link: &str) -> serde_json::Value {
    let output =
        std::process::Command::new("ip").args(["-s", "-j", "link", "show", "dev", link]).output();
    let text: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    text[0].clone()
}
