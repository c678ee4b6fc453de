//! Forgetting the connections of a machine that is gone.
//!
//! The host remembers each connection that it translated for as long as it may still be alive,
//! which is up to half an hour. A machine that opens many and ends at once, again and again,
//! would fill that memory. One message of ctnetlink (`IPCTNL_MSG_CT_DELETE` with a filter on the
//! source address; Linux 5.8 and newer) empties it.

use std::io;
use std::net::Ipv4Addr;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto,
    socket_with,
};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
const CT_DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST_ACK: u16 = 0x1 | 0x4;
const NESTED: u16 = 0x8000;
const BIG_ENDIAN: u16 = 0x4000;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
/// `CTA_FILTER_F_CTA_IP_SRC`: compare the source address, and nothing else.
const BY_SOURCE: u32 = 1;
const INET: u8 = 2;

/// Forgets every connection that began at `source`, in the network namespace of the calling
/// thread.
///
/// # Errors
/// What the kernel says. A kernel that has no such filter says so, and forgets nothing.
pub fn forget(source: Ipv4Addr) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let kind = SocketType::RAW;
    let socket = socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::NETFILTER))?;
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    sendto(&socket, &message(source), SendFlags::empty(), &kernel)?;
    let mut answer = [0; 512];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    let code = answer.get(16..20).filter(|_| length >= 20).and_then(|code| code.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        // It has none.
        Some(0) => Ok(()),
        Some(code) if -code == rustix::io::Errno::NOENT.raw_os_error() => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("the kernel's answer is too short")),
    }
}

fn message(source: Ipv4Addr) -> Vec<u8> {
    // `struct nfgenmsg`: family, version, resource.
    let mut body = vec![INET, 0, 0, 0];
    let address = attribute(CTA_IP_V4_SRC | BIG_ENDIAN, &source.octets());
    let ip = attribute(CTA_TUPLE_IP | NESTED, &address);
    body.extend(attribute(CTA_TUPLE_ORIG | NESTED, &ip));
    let flags = attribute(CTA_FILTER_ORIG_FLAGS, &BY_SOURCE.to_ne_bytes());
    body.extend(attribute(CTA_FILTER | NESTED, &flags));
    const HEADER: usize = 16;
    let length = u32::try_from(HEADER + body.len()).expect("it is short");
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(CT_DELETE.to_ne_bytes());
    message.extend(REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    // All values here are multiples of four bytes long, so that there is no padding.
    let length = u16::try_from(4 + value.len()).expect("it is short");
    [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
}
