//! With root: a namespace per machine, and the host's side of all of them.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::inner::written;
use super::nft::Nft;
use super::ours::{Ours, blocking};
use super::reach::Reach;
use super::{Allow, NetConfig, NetError, NetRecord, Plug, Wire, inside, resolvers, rules};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The networks of one deployment on this host.
#[derive(Debug)]
pub struct Namespaces {
    config: NetConfig,
    nft: Nft,
    resolvers: Vec<Ipv4Addr>,
    ours: Ours,
    next_slot: AtomicU32,
    /// How many are being made, that have no link yet.
    making: AtomicU32,
    host: tokio::sync::Mutex<HostSide>,
}

/// What is known of our rules on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostSide {
    /// Nothing: they may be there from before.
    Unknown,
    /// They are there, unless somebody else removed them.
    Ready,
    /// They are not.
    Clean,
}

/// Counts while it lives.
struct Making<'a>(&'a AtomicU32);

impl<'a> Making<'a> {
    fn one(of: &'a AtomicU32) -> Making<'a> {
        of.fetch_add(1, Ordering::SeqCst);
        Making(of)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Namespaces {
    /// For the deployment whose data directory this is. Changes nothing yet.
    pub fn open(data_dir: &Path, config: NetConfig, nft: Nft) -> Result<Namespaces, NetError> {
        Ok(Namespaces {
            resolvers: resolvers::choose(&config)?,
            config,
            nft,
            ours: Ours::of(data_dir),
            next_slot: AtomicU32::new(u32::from_be_bytes(random()?)),
            making: AtomicU32::new(0),
            host: tokio::sync::Mutex::new(HostSide::Unknown),
        })
    }

    pub async fn make(&self, allow: &[Allow]) -> Result<Plug, NetError> {
        let _making = Making::one(&self.making);
        let (reach, names) = Reach::of(allow).await?;
        self.ready_host().await?;
        let tag: [u8; 4] = random()?;
        let plan = inside::Plan {
            config: self.config.clone(),
            nft: self.nft.clone(),
            resolvers: if reach == Reach::All { self.resolvers.clone() } else { Vec::new() },
            reach,
            group: self.ours.group,
            mac: [0x06, 0xcb, tag[0], tag[1], tag[2], tag[3]],
            first_slot: self.next_slot.fetch_add(1, Ordering::Relaxed),
        };
        let mac = written(&plan.mac);
        let built = inside::build(plan).await?;
        let record = NetRecord::Namespace { link: built.link, mac, address: built.address, names };
        Ok(Plug { card: built.card, wire: Wire::Tap, record })
    }

    pub async fn tidy(&self) -> Result<(), NetError> {
        if self.ours.links().await?.is_empty() {
            self.clean_host().await
        } else {
            self.ready_host().await
        }
    }

    /// Makes sure that the host forwards for our machines, and only what it should. Done again
    /// for every machine, in case somebody flushed the rules.
    async fn ready_host(&self) -> Result<(), NetError> {
        let mut host = self.host.lock().await;
        if *host == HostSide::Ready {
            if self.ours.has_table(&self.nft).await? {
                return Ok(());
            }
            tracing::warn!(
                table = self.ours.table,
                "somebody removed our rules from this host; they are loaded again"
            );
        }
        let Ours { group, table } = &self.ours;
        let (nft, rules) =
            (self.nft.clone(), rules::host(&self.config, &self.resolvers, table, *group));
        // The rules first: nothing is ever forwarded without them.
        blocking(move || nft.load("host", &rules)).await?;
        forward().map_err(NetError::kernel("let this host forward packets"))?;
        *host = HostSide::Ready;
        Ok(())
    }

    /// Removes our rules from the host if no machine of ours has a network.
    async fn clean_host(&self) -> Result<(), NetError> {
        let mut host = self.host.lock().await;
        // Whoever begins to make one from here on waits for the lock, and loads them again.
        let needed = self.making.load(Ordering::SeqCst) > 0 || !self.ours.links().await?.is_empty();
        if *host != HostSide::Clean && !needed {
            self.ours.remove_table(&self.nft).await?;
            *host = HostSide::Clean;
        }
        Ok(())
    }
}

fn forward() -> io::Result<()> {
    if fs::read_to_string(IP_FORWARD)?.trim() != "0" {
        return Ok(());
    }
    fs::write(IP_FORWARD, "1")?;
    tracing::warn!(
        "this host forwards packets from now on, as machines with a network need it; \
         to undo it when callbox is gone: sysctl net.ipv4.ip_forward=0"
    );
    Ok(())
}

fn random() -> Result<[u8; 4], NetError> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| NetError::kernel("draw a number")(error.into()))?;
    Ok(bytes)
}
