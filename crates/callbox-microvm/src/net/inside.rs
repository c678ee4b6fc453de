//! Making one machine's namespace, in a thread of its own.
//!
//! ```text
//!  guest 10.0.2.15 ── card ─┐ namespace, no name                    ┌─ host
//!                           tap0 10.0.2.2, 10.0.2.3 ── nat ── up ═══ cbx-1a7 ── nat ── uplink
//!                                                  240.99.1.168      (no address)
//! ```
//!
//! A network namespace belongs to a thread, so a thread is made, moves, does its work from inside
//! and ends. Nothing holds the namespace then but the tap's descriptor: when its last holder (the
//! machine's QEMU) is gone, the kernel removes the namespace with all that is in it, and the link
//! on the host with it. What cannot be left over needs no sweeping.
//!
//! The host's end comes up last, when every rule is in force. It has no address, and neither end
//! ever asks for the other's hardware address: both are told.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};

use super::inner::{GATEWAY, GATEWAY_MAC, GUEST, GUEST_MAC, PREFIX, RESOLVER};
use super::links::{Links, Pair};
use super::nft::Nft;
use super::reach::Reach;
use super::rules::{self, LINK_PREFIX, TAP, UP};
use super::{NetConfig, NetError, tap};

/// The host's end of a link, seen from the machine's. Nobody has it; it only names the link.
const HOST_END: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Hardware address of the namespace's end.
const UP_MAC: [u8; 6] = [0x02, 0xcb, 0, 0, 0, 0x03];

/// What to make.
pub struct Plan {
    pub config: NetConfig,
    pub nft: Nft,
    pub resolvers: Vec<Ipv4Addr>,
    pub reach: Reach,
    /// Group of the host's ends: whose they are.
    pub group: u32,
    /// Hardware address of the host's end: which one it is.
    pub mac: [u8; 6],
    /// Where to begin looking for a number that is free.
    pub first_slot: u32,
}

/// What was made.
pub struct Built {
    /// The card's other end.
    pub card: OwnedFd,
    /// Name of the host's end.
    pub link: String,
    /// The machine's address between namespace and host.
    pub address: Ipv4Addr,
}

/// Makes it, in a thread of its own. When the future is dropped, what was made is removed by the
/// kernel, as nobody holds its descriptor.
pub async fn build(plan: Plan) -> Result<Built, NetError> {
    let (answer, built) = tokio::sync::oneshot::channel();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(NetError::kernel("start the work on a namespace"));
        let _ = answer.send(runtime.and_then(|runtime| runtime.block_on(make(&plan))));
    };
    let thread = std::thread::Builder::new().name("callbox-net".to_owned()).spawn(work);
    thread.map_err(NetError::kernel("start a thread for a namespace"))?;
    built.await.expect("the thread answers before it ends")
}

async fn make(plan: &Plan) -> Result<Built, NetError> {
    let host = Links::open()?;
    let own = host.addresses().await?;
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|error| NetError::kernel("make a network namespace")(error.into()))?;
    let namespace = File::open("/proc/thread-self/ns/net");
    let namespace = namespace.map_err(NetError::kernel("open the new namespace"))?;
    settle()?;
    let card = tap::open(TAP).map_err(NetError::kernel("make a tap device"))?;
    let (link, address) = connect(plan, &host, &namespace).await?;
    let text = rules::namespace(&plan.config, &plan.resolvers, &plan.reach, &own, address);
    plan.nft.load("machine", &text)?;
    furnish(address, plan.mac).await?;
    open_up(&host, &link, address).await?;
    Ok(Built { card, link, address })
}

/// Forwarding on, IPv6 off, before there is an interface that could do otherwise.
fn settle() -> Result<(), NetError> {
    for (setting, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        // Refusals are bounded by our own rules, so that a bot learns of each at once.
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/conf/all/disable_ipv6", "1"),
        ("ipv6/conf/default/disable_ipv6", "1"),
    ] {
        let path = Path::new("/proc/sys/net").join(setting);
        if setting.starts_with("ipv6") && !path.exists() {
            continue;
        }
        fs::write(&path, value).map_err(NetError::kernel("set up a namespace"))?;
    }
    Ok(())
}

/// Links namespace and host under the first number that is free. Its name is taken or not for all
/// processes of the host at once, so it is the lock.
async fn connect(
    plan: &Plan,
    host: &Links,
    namespace: &File,
) -> Result<(String, Ipv4Addr), NetError> {
    let slots = plan.config.slots();
    for step in 0..slots {
        let slot = (plan.first_slot % slots + step) % slots;
        let name = format!("{LINK_PREFIX}{slot:x}");
        let pair = Pair {
            name: &name,
            mac: plan.mac,
            group: plan.group,
            peer: UP,
            peer_mac: UP_MAC,
            peer_namespace: namespace.as_fd(),
        };
        if host.pair(&pair).await? {
            return Ok((name, plan.config.address(slot)));
        }
    }
    Err(NetError::Full(slots))
}

/// The namespace's own side.
async fn furnish(address: Ipv4Addr, host_mac: [u8; 6]) -> Result<(), NetError> {
    let inside = Links::open()?;
    let index = async |name: &'static str| {
        let found = inside.find(name).await?;
        Ok(found.ok_or_else(|| NetError::kernel("find a link")(gone(name)))?.index)
    };
    let (tap, up) = (index(TAP).await?, index(UP).await?);
    for own in [GATEWAY, RESOLVER] {
        inside.address(tap, own, PREFIX).await?;
    }
    inside.address(up, address, 32).await?;
    inside.up(tap, Some(GATEWAY_MAC)).await?;
    inside.up(up, None).await?;
    inside.neighbour(tap, GUEST, GUEST_MAC).await?;
    inside.neighbour(up, HOST_END, host_mac).await?;
    inside.default_route(up, HOST_END).await
}

/// The host's side.
async fn open_up(host: &Links, name: &str, address: Ipv4Addr) -> Result<(), NetError> {
    let found = host.find(name).await?;
    let index = found.ok_or_else(|| NetError::kernel("find a link")(gone(name)))?.index;
    host.without_ipv6(index).await?;
    host.up(index, None).await?;
    host.neighbour(index, address, UP_MAC).await?;
    host.route_to(index, address).await
}

fn gone(name: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::NotFound, format!("{name} was removed meanwhile"))
}
