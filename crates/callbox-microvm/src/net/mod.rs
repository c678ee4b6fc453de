//! The networks of machines: out to the internet or to what their bot may, and nowhere else.
//!
//! ```text
//!            ┌ root:    namespace, tap, veth, nftables ── everything below is enforced
//! Networks ──┼ no root: passt, one process per machine ── what is not enforced is named
//!            └ neither: machines with a network are refused
//! ```
//!
//! Nothing may come in: a bot's ports are reached through the agent only. Never reached, whatever
//! a configuration says: the host, its loopback, link-local and metadata, private ranges, other
//! machines ([`never`]). There is no IPv6.
//!
//! A network is made *before* its machine's QEMU ([`Networks::make`]) and passed to it as one open
//! descriptor; QEMU itself lives in a namespace without any network. **The network lives as long
//! as that descriptor**: whoever dies, in whatever order, nothing of it stays. [`remove`] only
//! makes sure that it is gone now.
//!
//! Read in this order: `rules.rs` (what is let through), `inside.rs` (one machine's side),
//! `namespaces.rs` (the host's side), `ours.rs` (what is whose), `passt.rs`.

mod allow;
mod conntrack;
pub mod inner;
mod inside;
mod links;
mod namespaces;
pub mod never;
mod nft;
mod ours;
mod passt;
mod reach;
mod resolvers;
mod rules;
pub mod tap;
pub mod way;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;

/// A block of addresses.
pub use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use allow::{Allow, To};
pub use ours::{Found, clear, leftovers, remove};
pub use reach::Names;
pub use resolvers::choose as resolvers;

use crate::config::Network;
use crate::run::process::Identity;
use namespaces::Namespaces;
use passt::Passt;
use way::{Way, way};

/// How this host gives networks to machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Addresses for the links between namespaces and host; one per machine. They are seen by
    /// nobody else.
    pub links: Ipv4Net,
    /// Whom machines ask for names; empty takes those of the host that are on the internet.
    pub dns: Vec<Ipv4Addr>,
    /// Blocks that no machine reaches, beside those that none ever does.
    pub deny: Vec<Ipv4Net>,
    /// Connections that one machine may have at once.
    pub connections: u32,
    /// Connections that one machine may begin in a second; four times as many in the first one.
    pub new_connections_per_s: u32,
}

impl Default for NetConfig {
    fn default() -> NetConfig {
        NetConfig {
            links: Ipv4Net::new_assert(Ipv4Addr::new(240, 99, 0, 0), 16),
            dns: Vec::new(),
            deny: Vec::new(),
            connections: 512,
            new_connections_per_s: 50,
        }
    }
}

impl NetConfig {
    /// How many machines can have a network at once.
    fn slots(&self) -> u32 {
        // Without the first and the last address.
        (1_u32 << (32 - u32::from(self.links.prefix_len()).clamp(8, 30))) - 2
    }

    fn address(&self, slot: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.links.network().to_bits() + 1 + slot)
    }
}

/// The networks of one deployment.
#[derive(Debug)]
pub struct Networks {
    maker: Maker,
}

#[derive(Debug)]
enum Maker {
    Namespaces(Box<Namespaces>),
    Passt(Passt),
    /// None, and why.
    None(String),
}

/// A machine's network, ready to be plugged in.
#[derive(Debug)]
pub struct Plug {
    /// For QEMU; the network lives until the last copy is closed.
    pub card: OwnedFd,
    /// What is behind the descriptor.
    pub wire: Wire,
    /// For the machine's record.
    pub record: NetRecord,
}

/// How QEMU speaks to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// A tap device.
    Tap,
    /// A connected stream socket.
    Stream,
}

/// What is remembered of a machine's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetRecord {
    /// A namespace.
    Namespace {
        /// Name of its link on the host.
        link: String,
        /// Hardware address of that link, drawn for it: the name is used again, this is not.
        mac: String,
        /// The machine's address on that link.
        address: Ipv4Addr,
        /// The names that the machine may reach, with the addresses that they had.
        #[serde(default)]
        names: Names,
    },
    /// A process of passt.
    Passt {
        /// Which one.
        process: Identity,
        /// Whom the machine asks for names.
        #[serde(default)]
        resolvers: Vec<Ipv4Addr>,
    },
}

/// Why a machine has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The kernel says no.
    #[error("cannot {doing}")]
    Kernel {
        /// What was attempted.
        doing: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// nft says no.
    #[error("nft does not take the rules of the {whose}: {said}")]
    Rules {
        /// Whose rules.
        whose: &'static str,
        /// What it says.
        said: String,
    },
    /// A name of an allow-list cannot be looked up.
    #[error("cannot look up {name:?}, which the bot may reach: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// passt cannot be started.
    #[error("cannot start passt: {0}")]
    Passt(String),
    /// The host cannot do what the bot's configuration asks for.
    #[error("no machine gets this network on this host: {0}")]
    Unavailable(String),
    /// No number is free.
    #[error("all {0} addresses for machines are in use; hint: give local.network.links more")]
    Full(u32),
    /// The configuration cannot be.
    #[error("{0}")]
    Config(String),
}

impl NetError {
    pub(crate) fn kernel(doing: &'static str) -> impl FnOnce(io::Error) -> NetError {
        move |source| NetError::Kernel { doing, source }
    }
}

impl Networks {
    /// For the deployment whose data directory this is (absolute). Changes nothing on the host:
    /// that is done when the first machine asks for a network.
    ///
    /// # Errors
    /// [`NetError::Config`] if a resolver is configured that cannot be.
    pub fn open(data_dir: &Path, config: NetConfig) -> Result<Networks, NetError> {
        let maker = match way() {
            Way::Namespaces(nft) => {
                Maker::Namespaces(Box::new(Namespaces::open(data_dir, config, nft)?))
            }
            Way::Passt(program) => Maker::Passt(Passt::open(program, &config)?),
            Way::None(why) => Maker::None(why),
        };
        Ok(Networks { maker })
    }

    /// Makes the network that a machine of this kind needs; `None` if it needs none. Some 20 ms:
    /// not to be done between a request and its answer. When the future is dropped, nothing stays.
    ///
    /// # Errors
    /// When the host cannot, or not for this kind of network.
    pub async fn make(&self, network: &Network) -> Result<Option<Plug>, NetError> {
        let Network::Internet { allow } = network else { return Ok(None) };
        match &self.maker {
            Maker::Namespaces(namespaces) => namespaces.make(allow).await.map(Some),
            Maker::Passt(passt) => passt.make(allow).map(Some),
            Maker::None(why) => Err(NetError::Unavailable(why.clone())),
        }
    }

    /// Brings the host's side in order: without our rules when no machine has a network, and with
    /// them, if somebody else removed them, when one has. Machines are not its business.
    ///
    /// # Errors
    /// When the host cannot be looked at or changed.
    pub async fn tidy(&self) -> Result<(), NetError> {
        match &self.maker {
            Maker::Namespaces(namespaces) => namespaces.tidy().await,
            Maker::Passt(_) | Maker::None(_) => Ok(()),
        }
    }

    /// What is not enforced around a machine with this network, in words.
    #[must_use]
    pub fn not_enforced(&self, network: &Network) -> Option<&'static str> {
        match &self.maker {
            Maker::Passt(_) if network.has_card() => Some(way::NOT_BY_PASST),
            Maker::Namespaces(_) | Maker::Passt(_) | Maker::None(_) => None,
        }
    }
}
