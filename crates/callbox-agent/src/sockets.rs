//! The machine's TCP sockets, as `/proc/net/tcp` and `tcp6` list them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rustix::process::Pid;

const ESTABLISHED: u8 = 0x01;
const LISTEN: u8 = 0x0a;

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    inode: u64,
}

/// What matters for a template.
pub(crate) struct Sockets {
    /// Addresses that something listens on.
    pub listening: Vec<String>,
    /// Open connections, with the process that holds them where it is known.
    pub established: Vec<String>,
}

/// Looks at all sockets of the machine, or only at those of one process group.
pub(crate) fn survey(group: Option<Pid>) -> Sockets {
    let owners = owners(group);
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        sockets.extend(text.lines().skip(1).filter_map(parse));
    }
    sockets.retain(|socket| group.is_none() || owners.contains_key(&socket.inode));
    let with_state = |state| sockets.iter().filter(move |socket| socket.state == state);
    let listening: HashSet<_> = with_state(LISTEN).map(|socket| socket.local).collect();
    let mut listening: Vec<_> = listening.into_iter().collect();
    listening.sort();
    Sockets {
        listening: listening.iter().map(SocketAddr::to_string).collect(),
        established: with_state(ESTABLISHED)
            .map(|socket| {
                let owner = owners.get(&socket.inode).map_or("unknown", String::as_str);
                format!("{} -> {} ({owner})", socket.local, socket.remote)
            })
            .collect(),
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

fn parse(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Socket { local, remote, state, inode })
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
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(host, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 \
                    00000000  1000        0 4242 1 0000000000000000 100 0 0 10 0";
        let socket = parse(line).expect("a socket");
        assert_eq!(socket.local.to_string(), "127.0.0.1:8080");
        assert_eq!((socket.state, socket.inode), (LISTEN, 4242));
        let v6 = address("00000000000000000000000001000000:0016").expect("an address");
        assert_eq!(v6.to_string(), "[::1]:22");
        assert_eq!(parse("  sl  local_address rem_address   st"), None);
        assert_eq!(parse(""), None);
    }
}
