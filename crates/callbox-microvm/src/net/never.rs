//! Where no machine ever gets, whatever its bot's configuration says.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Address blocks that are not the internet: the host itself, its neighbours, the cloud's
/// metadata. Machines have no IPv6 at all, so that nothing has to be said of its blocks (mapped,
/// translated, link-local, unique local): a frame that carries it is dropped at the card.
const BLOCKS: &[([u8; 4], u8, &str)] = &[
    ([0, 0, 0, 0], 8, "this host on this network"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "shared by carriers; also vpns, and a cloud's metadata"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([168, 63, 129, 16], 32, "a cloud's host agent"),
    ([169, 254, 0, 0], 16, "link-local; also clouds' metadata, 169.254.169.254"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "protocol assignments"),
    ([192, 88, 99, 0], 24, "relays into ipv6"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "benchmarks"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([240, 0, 0, 0], 4, "reserved; also broadcast, and the links between host and machines"),
];

/// All of them.
pub fn blocks() -> impl Iterator<Item = Ipv4Net> {
    BLOCKS.iter().map(|(address, length, _)| Ipv4Net::new_assert(Ipv4Addr::from(*address), *length))
}

/// The block that all of `block` lies in, with what it is, if there is one.
pub fn holds(block: Ipv4Net) -> Option<(Ipv4Net, &'static str)> {
    blocks()
        .zip(BLOCKS)
        .find(|(never, _)| never.contains(&block))
        .map(|(n, (_, _, what))| (n, *what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_internet_is_known() {
        for never in [
            "10.1.2.3/32",
            "127.0.0.1/32",
            "169.254.169.254/32",
            "100.100.100.200/32",
            "192.168.0.0/24",
            "172.31.0.0/16",
            "255.255.255.255/32",
            "224.0.0.251/32",
            "0.0.0.0/32",
            "168.63.129.16/32",
        ] {
            assert!(holds(never.parse().expect("a block")).is_some(), "{never}");
        }
        for internet in ["8.8.8.8/32", "203.0.113.0/24", "172.32.0.1/32", "0.0.0.0/0", "11.0.0.0/8"]
        {
            assert!(holds(internet.parse().expect("a block")).is_none(), "{internet}");
        }
    }
}
