//! The rules of nftables, as text. Pure: who loads them is `inside.rs` and `namespaces.rs`.
//!
//! Two walls, each enough by itself for what no machine may reach:
//!
//! ```text
//! guest ─ tap0 │ namespace                              │ cbx-… │ host                     │ uplink
//!              │ 1 only ipv4 and arp, only as itself     │ veth  │ 3 only as its own address │
//!              │ 2 only where the bot may, new           │       │   never to what is local, │
//!              │   connections counted, nothing comes in │       │   private, or another's   │
//! ```

use std::fmt::Display;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::inner::{GATEWAY, GUEST, GUEST_MAC, RESOLVER, written};
use super::reach::Reach;
use super::{NetConfig, never};

/// Name of the card's other end in the namespace.
pub const TAP: &str = "tap0";
/// Name of the namespace's way to the host.
pub const UP: &str = "up";
/// How the host's ends of all such ways begin, whoever made them.
pub const LINK_PREFIX: &str = "cbx-";

/// Rules of one machine's namespace. `address` is the one it has between namespace and host,
/// `host` are the host's own, which no machine reaches.
pub fn namespace(
    config: &NetConfig,
    resolvers: &[Ipv4Addr],
    reach: &Reach,
    host: &[Ipv4Addr],
    address: Ipv4Addr,
) -> String {
    let mac = written(&GUEST_MAC);
    let never = list(never::blocks().chain(config.deny.iter().copied()).chain(hosts(host)));
    let names = resolvers_rule(resolvers);
    let allowed = allowed(reach);
    let (connections, rate) = (config.connections, config.new_connections_per_s);
    let burst = rate.saturating_mul(4);
    format!(
        r#"table netdev callbox {{
  chain from_guest {{
    type filter hook ingress device "{TAP}" priority 0; policy drop;
    arp operation request arp saddr ip {GUEST} arp daddr ip {{ {GATEWAY}, {RESOLVER} }} limit rate 50/second burst 50 packets accept
    ether saddr {mac} ip saddr {GUEST} ip hdrlength 5 accept
  }}
}}
table inet callbox {{
  set never {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {never} }}; }}
  chain names {{
    type nat hook prerouting priority dstnat; policy accept;
{names}  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname "{UP}" oifname "{TAP}" goto answers
    iifname != "{TAP}" drop
    oifname != "{UP}" drop
    ct state established accept
    ct state related meta l4proto icmp accept
    ct state != new drop
    ct status confirmed accept
    meta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn drop
    limit rate over {rate}/second burst {burst} packets drop
    ct count over {connections} drop
    ct status dnat accept
    ip daddr @never goto refuse
{allowed}    goto refuse
  }}
  chain answers {{
    ct state established accept
    ct state related meta l4proto icmp accept
    drop
  }}
  chain refuse {{
    reject with icmpx admin-prohibited
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    limit rate 50/second burst 50 packets goto refuse
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    oifname "{TAP}" meta l4proto icmp accept
  }}
  chain source {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{UP}" snat ip to {address}
  }}
}}
"#
    )
}

/// Rules of the host for all machines of one deployment, whose links are of `group`. Replaces the
/// table as a whole, in one step, so that machines that run are never without it.
pub fn host(config: &NetConfig, resolvers: &[Ipv4Addr], table: &str, group: u32) -> String {
    let never = list(never::blocks().chain(config.deny.iter().copied()));
    let names = match resolvers {
        [] => String::new(),
        some => format!(
            "    ip daddr {{ {} }} meta l4proto {{ tcp, udp }} th dport 53 accept\n",
            list(some)
        ),
    };
    format!(
        r#"table inet {table} {{}}
delete table inet {table}
table inet {table} {{
  set never {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {never} }}; }}
  ct timeout patience {{ protocol tcp; l3proto ip; policy = {{ established : 1800, close_wait : 60, fin_wait : 60, last_ack : 30, time_wait : 30 }}; }}
  chain first {{
    type filter hook prerouting priority raw; policy accept;
    iifgroup {group} goto from_machine
  }}
  chain from_machine {{
    meta nfproto != ipv4 drop
    fib saddr . iif oif missing drop
    fib daddr type != unicast drop
{names}    ip daddr @never drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifgroup {group} drop
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifgroup {group} icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} accept
    oifgroup {group} drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifgroup {group} goto out
    oifgroup {group} goto back
  }}
  chain out {{
    oifname "{LINK_PREFIX}*" drop
    meta l4proto tcp ct state new ct timeout set "patience"
    tcp flags syn tcp option maxseg size set rt mtu
    accept
  }}
  chain back {{
    ct state established accept
    ct state related meta l4proto icmp accept
    drop
  }}
  chain source {{
    type nat hook postrouting priority srcnat; policy accept;
    iifgroup {group} masquerade
  }}
}}
"#
    )
}

/// Removes the host's table; one that is not there is fine.
pub fn no_host(table: &str) -> String {
    format!("table inet {table} {{}}\ndelete table inet {table}\n")
}

/// Questions for names go to the resolvers in turn: who asks again, asks the next one.
fn resolvers_rule(resolvers: &[Ipv4Addr]) -> String {
    let to = match resolvers {
        [] => return String::new(),
        [one] => one.to_string(),
        some => {
            let turns = some.iter().enumerate().map(|(turn, at)| format!("{turn} : {at}"));
            let turns = turns.collect::<Vec<_>>().join(", ");
            format!("numgen inc mod {} map {{ {turns} }}", some.len())
        }
    };
    format!(
        "    iifname \"{TAP}\" ip daddr {RESOLVER} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {to}\n"
    )
}

fn allowed(reach: &Reach) -> String {
    let rule = |to: &str, port: Option<u16>| match port {
        Some(port) => format!("    {to}meta l4proto {{ tcp, udp }} th dport {port} accept\n"),
        None => format!(
            "    {to}meta l4proto {{ tcp, udp }} accept\n    {to}icmp type echo-request accept\n"
        ),
    };
    match reach {
        Reach::All => rule("", None),
        Reach::Only(some) => {
            some.iter().map(|(block, port)| rule(&format!("ip daddr {block} "), *port)).collect()
        }
    }
}

fn hosts(addresses: &[Ipv4Addr]) -> impl Iterator<Item = Ipv4Net> {
    addresses.iter().copied().map(Ipv4Net::from)
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NetConfig {
        NetConfig {
            deny: vec!["203.0.113.64/26".parse().expect("a block")],
            ..NetConfig::default()
        }
    }

    #[test]
    fn an_empty_allow_list_allows_all_but_what_is_never_reached() {
        let host = [Ipv4Addr::new(192, 0, 2, 2)];
        let rules = namespace(&config(), &[], &Reach::All, &host, Ipv4Addr::new(240, 99, 0, 7));
        let never = rules.find("@never goto refuse").expect("it is there");
        let all = rules.find("meta l4proto { tcp, udp } accept").expect("it is there");
        assert!(never < all, "{rules}");
        for block in ["169.254.0.0/16", "203.0.113.64/26", "192.0.2.2/32"] {
            assert!(rules.contains(block), "{block}: {rules}");
        }
        assert!(rules.contains("snat ip to 240.99.0.7") && !rules.contains("dnat ip"), "{rules}");
    }

    #[test]
    fn an_allow_list_allows_nothing_else() {
        let block = |text: &str| text.parse().expect("a block");
        let only = vec![(block("203.0.113.7/32"), Some(443)), (block("198.51.100.0/24"), None)];
        let reach = Reach::Only(only);
        let dns = [Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1)];
        let rules = namespace(&config(), &dns, &reach, &[], Ipv4Addr::new(240, 99, 0, 7));
        assert!(
            rules.contains("ip daddr 203.0.113.7/32 meta l4proto { tcp, udp } th dport 443 accept")
        );
        assert!(rules.contains("ip daddr 198.51.100.0/24 icmp type echo-request accept"));
        assert!(!rules.contains("    meta l4proto { tcp, udp } accept"), "{rules}");
        assert!(rules.contains("dnat ip to numgen inc mod 2 map { 0 : 9.9.9.9, 1 : 1.1.1.1 }"));
    }

    #[test]
    fn a_list_without_anything_in_it_lets_nothing_out() {
        let nothing = Reach::Only(Vec::new());
        let rules = namespace(&config(), &[], &nothing, &[], Ipv4Addr::new(240, 99, 0, 7));
        assert!(!rules.contains("meta l4proto { tcp, udp } accept"), "{rules}");
        assert!(!rules.contains("echo-request"), "{rules}");
    }

    #[test]
    fn the_host_lets_a_private_resolver_be_asked_for_names_only() {
        let rules = host(&config(), &[Ipv4Addr::new(10, 0, 0, 53)], "callbox_x", 7);
        let asked = rules.find("ip daddr { 10.0.0.53 } meta l4proto { tcp, udp } th dport 53");
        let local = rules.find("fib daddr type != unicast drop");
        assert!(local < asked && asked < rules.find("ip daddr @never drop"), "{rules}");
    }
}
