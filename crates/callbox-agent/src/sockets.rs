//! The machine's sockets, as `/proc/net/{tcp,tcp6,udp,udp6}` list them.
//!
//! What may not be in a template: a connection that every clone would believe to be its own.
//!
//! * TCP: everything between the first packet and the last one of which a process still holds
//!   its end, wherever the other end is. `TIME_WAIT` and the like belong to the kernel alone and
//!   go by themselves.
//! * UDP: sockets that were connected to an address outside the machine. Whoever is there may
//!   know this end (DTLS, QUIC). One that is connected within the machine is no connection.
//!
//! A connection within the machine is listed once, with both its owners.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rustix::process::Pid;

const ESTABLISHED: u8 = 0x01;
const CLOSE: u8 = 0x07;
const LISTEN: u8 = 0x0a;

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    protocol: Protocol,
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    /// Zero where no process holds it.
    inode: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

/// What matters for a template.
pub(crate) struct Sockets {
    /// Addresses that something listens on.
    pub listening: Vec<String>,
    /// Open connections, with the processes that hold them where they are known.
    pub open: Vec<String>,
}

/// Looks at all sockets of the machine, or only at those of one process group.
pub(crate) fn survey(group: Option<Pid>) -> Sockets {
    let owners = owners(group);
    let mut sockets = Vec::new();
    for (table, protocol) in [
        ("/proc/net/tcp", Protocol::Tcp),
        ("/proc/net/tcp6", Protocol::Tcp),
        ("/proc/net/udp", Protocol::Udp),
        ("/proc/net/udp6", Protocol::Udp),
    ] {
        let text = fs::read_to_string(table).unwrap_or_default();
        sockets.extend(text.lines().skip(1).filter_map(|line| parse(line, protocol)));
    }
    sockets.retain(|socket| group.is_none() || owners.contains_key(&socket.inode));
    summarise(&sockets, &owners)
}

fn summarise(sockets: &[Socket], owners: &HashMap<u64, String>) -> Sockets {
    let listens = |s: &&Socket| s.protocol == Protocol::Tcp && s.state == LISTEN;
    let listening: BTreeSet<_> = sockets.iter().filter(listens).map(|s| s.local).collect();
    let open: Vec<&Socket> = sockets.iter().filter(|socket| is_open(socket)).collect();
    let owner = |socket: &Socket| owners.get(&socket.inode).map_or("unknown", String::as_str);
    let mut told = Vec::new();
    for (index, socket) in open.iter().enumerate() {
        let end = |other: &&&Socket| other.local == socket.remote && other.remote == socket.local;
        // Its other end was met already, and told of both.
        if open[..index].iter().any(|other| end(&other)) {
            continue;
        }
        let protocol = match socket.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "udp ",
        };
        let (local, remote) = (socket.local, socket.remote);
        let from = format!("{protocol}{local} ({}) -> {remote}", owner(socket));
        told.push(match open.iter().find(end) {
            Some(other) => format!("{from} ({}), both ends in the machine", owner(other)),
            None => from,
        });
    }
    Sockets { listening: listening.iter().map(SocketAddr::to_string).collect(), open: told }
}

fn is_open(socket: &Socket) -> bool {
    match socket.protocol {
        // Established without a process: nobody accepted it yet.
        Protocol::Tcp => {
            socket.state == ESTABLISHED
                || (socket.inode != 0 && socket.state != LISTEN && socket.state != CLOSE)
        }
        Protocol::Udp => socket.state == ESTABLISHED && !socket.remote.ip().is_loopback(),
    }
}

/// Names of processes by the inodes of their sockets.
fn owners(group: Option<Pid>) -> HashMap<u64, String> {
    let mut owners = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if group.is_some_and(|group| group_of(&process.path()) != Some(group)) {
            continue;
        }
        let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let owner = format!("{} {pid}", command.trim_end());
        for file in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(file.path()) else {
                continue;
            };
            let inode = target.to_str().and_then(|target| {
                target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
            });
            if let Some(inode) = inode {
                owners.insert(inode, owner.clone());
            }
        }
    }
    owners
}

/// The process group of `/proc/PID`: the third field after the name, which may hold anything.
fn group_of(process: &Path) -> Option<Pid> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Pid::from_raw(fields.split_ascii_whitespace().nth(2)?.parse().ok()?)
}

fn parse(line: &str, protocol: Protocol) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Socket { protocol, local, remote, state, inode })
}

/// `0100007F:1F90`: words of the address in the machine's byte order, port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let words = hex::decode(host).ok()?;
    let mut octets = Vec::with_capacity(16);
    for word in words.chunks(4) {
        let word = u32::from_be_bytes(word.try_into().ok()?);
        octets.extend_from_slice(&word.to_ne_bytes());
    }
    let host = match octets.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        // An end of a connection may be listed as ::ffff:127.0.0.1, and the other as 127.0.0.1.
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(host, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "00000000:00000000 00:00000000 00000000  1000        0";

    fn socket(protocol: Protocol, ends: &str, state: &str, inode: u64) -> Socket {
        parse(&format!("   0: {ends} {state} {TAIL} {inode} 1 0 100 0 0 10 0"), protocol)
            .expect("a socket")
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let socket = socket(Protocol::Tcp, "0100007F:1F90 00000000:0000", "0A", 4242);
        assert_eq!(socket.local.to_string(), "127.0.0.1:8080");
        assert_eq!((socket.state, socket.inode), (LISTEN, 4242));
        let v6 = address("00000000000000000000000001000000:0016").expect("an address");
        assert_eq!(v6.to_string(), "[::1]:22");
        let mapped = address("0000000000000000FFFF00000100007F:0016").expect("an address");
        assert_eq!(mapped.to_string(), "127.0.0.1:22");
        assert_eq!(parse("  sl  local_address rem_address   st", Protocol::Tcp), None);
        assert_eq!(parse("", Protocol::Tcp), None);
    }

    #[test]
    fn only_what_somebody_holds_is_open() {
        let owners = HashMap::from([(1, "bot 7".to_owned()), (2, "db 8".to_owned())]);
        let open = |sockets: &[Socket]| summarise(sockets, &owners).open;
        let tcp = |ends, state, inode| socket(Protocol::Tcp, ends, state, inode);
        let udp = |ends, state| socket(Protocol::Udp, ends, state, 1);
        let outside = "0F02000A:9C40 01020304:01BB";
        assert_eq!(open(&[tcp(outside, "01", 1)]), ["10.0.2.15:40000 (bot 7) -> 4.3.2.1:443"]);
        // Attempts, half-closed ones, and those that nobody has accepted yet.
        for (state, inode) in [("02", 1), ("08", 1), ("04", 1), ("01", 0)] {
            assert_eq!(open(&[tcp(outside, state, inode)]).len(), 1, "{state}");
        }
        // TIME_WAIT, an orphan's last packets, a socket that was never connected, a listener.
        for (state, inode) in [("06", 0), ("05", 0), ("07", 1), ("0A", 1)] {
            assert!(open(&[tcp(outside, state, inode)]).is_empty(), "{state}");
        }
        assert_eq!(open(&[udp(outside, "01")]), ["udp 10.0.2.15:40000 (bot 7) -> 4.3.2.1:443"]);
        assert!(open(&[udp("0100007F:9C40 0100007F:1FBD", "01")]).is_empty());
        assert!(open(&[udp("00000000:9C40 00000000:0000", "07")]).is_empty());
    }

    #[test]
    fn a_connection_within_the_machine_is_told_once_with_both_owners() {
        let owners = HashMap::from([(1, "bot 7".to_owned()), (2, "db 8".to_owned())]);
        let here = socket(Protocol::Tcp, "0100007F:9C40 0100007F:1538", "01", 1);
        let mapped = "0000000000000000FFFF00000100007F";
        let ends = format!("{mapped}:1538 {mapped}:9C40");
        let there = socket(Protocol::Tcp, &ends, "01", 2);
        let open = summarise(&[here, there], &owners).open;
        let told = "127.0.0.1:40000 (bot 7) -> 127.0.0.1:5432 (db 8), both ends in the machine";
        assert_eq!(open, [told]);
    }
}
