//! What belongs to one deployment on the host: links by their group, and one table of rules.
//!
//! Found by looking at the host, never from memory, so it is found after any crash.

use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use callbox_protocol::agent::Hosts;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::inner::{RESOLVER, written};
use super::links::{Link, Links};
use super::nft::Nft;
use super::rules::{self, LINK_PREFIX};
use super::way::{Way, way};
use super::{Names, NetError, NetRecord, conntrack, passt};

/// One deployment.
#[derive(Clone, Debug)]
pub struct Ours {
    /// Group of our links on the host: ours and nobody else's.
    pub group: u32,
    /// Our table on the host.
    pub table: String,
}

impl Ours {
    /// That of the data directory (absolute).
    pub fn of(data_dir: &Path) -> Ours {
        let digest = Sha256::digest(data_dir.as_os_str().as_bytes());
        let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        // Far from the small numbers that people give to groups; positive where it is printed.
        let group = 0x4000_0000 | (number >> 2);
        Ours { group, table: format!("callbox_{group:x}") }
    }

    /// The host's ends of all our links.
    pub async fn links(&self) -> Result<Vec<Link>, NetError> {
        let all = Links::open()?.all().await?.into_iter();
        let ours = |link: &Link| link.group == self.group && link.name.starts_with(LINK_PREFIX);
        Ok(all.filter(ours).collect())
    }

    pub async fn has_table(&self, nft: &Nft) -> Result<bool, NetError> {
        let (nft, table) = (nft.clone(), self.table.clone());
        blocking(move || nft.has(&table)).await
    }

    pub async fn remove_table(&self, nft: &Nft) -> Result<(), NetError> {
        let (nft, rules) = (nft.clone(), rules::no_host(&self.table));
        blocking(move || nft.load("host", &rules)).await
    }
}

/// Something on this host that belongs to a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Found {
    /// A link, whose other end is in a machine's namespace.
    Link(String),
    /// The rules for all of them.
    Table(String),
}

impl Found {
    /// As people call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Found::Link(name) => name.clone(),
            Found::Table(name) => format!("table inet {name}"),
        }
    }
}

/// Everything of the deployment that no machine of `keep` needs: for the time when no dispatcher
/// runs, as one that does may have made a link that it has not written down yet. Without root
/// there is nothing, as every passt ends with its machine.
///
/// # Errors
/// When the host cannot be looked at.
pub async fn leftovers(data_dir: &Path, keep: &[NetRecord]) -> Result<Vec<Found>, NetError> {
    let Way::Namespaces(nft) = way() else { return Ok(Vec::new()) };
    let ours = Ours::of(data_dir);
    let kept = |link: &Link| keep.iter().any(|record| record.is_of(link));
    let (needed, left): (Vec<_>, Vec<_>) = ours.links().await?.into_iter().partition(kept);
    let mut found: Vec<_> = left.into_iter().map(|link| Found::Link(link.name)).collect();
    if needed.is_empty() && ours.has_table(&nft).await? {
        found.push(Found::Table(ours.table));
    }
    Ok(found)
}

/// Removes it. What is gone already is fine.
///
/// # Errors
/// When it does not go away.
pub async fn clear(data_dir: &Path, found: &Found) -> Result<(), NetError> {
    let Way::Namespaces(nft) = way() else { return Ok(()) };
    let ours = Ours::of(data_dir);
    match found {
        Found::Link(name) => {
            let links = Links::open()?;
            match links.find(name).await?.filter(|link| link.group == ours.group) {
                Some(link) => links.remove(link.index).await,
                None => Ok(()),
            }
        }
        Found::Table(_) => ours.remove_table(&nft).await,
    }
}

/// Removes a machine's network, also from under one that still runs. One that is gone is fine.
///
/// # Errors
/// When it cannot be removed.
pub async fn remove(record: &NetRecord) -> Result<(), NetError> {
    match record {
        // Made by root: without root it goes with its machine.
        NetRecord::Namespace { .. } if !rustix::process::geteuid().is_root() => Ok(()),
        NetRecord::Namespace { link, address, mac: _, names: _ } => {
            let links = Links::open()?;
            match links.find(link).await? {
                Some(link) if record.is_of(&link) => links.remove(link.index).await?,
                // Its number has become another machine's already; that one's connections stay.
                Some(_) => return Ok(()),
                None => {}
            }
            forget(*address);
            Ok(())
        }
        NetRecord::Passt { process, resolvers: _ } => {
            passt::end(process).await.map_err(NetError::kernel("end a passt"))
        }
    }
}

fn forget(address: Ipv4Addr) {
    if let Err(error) = conntrack::forget(address) {
        tracing::debug!(%error, "the connections of a machine that is gone are remembered a while longer");
    }
}

impl NetRecord {
    /// What the machine must be told of names. Every machine is, also when there is nothing
    /// special to say: its template may have been told something else.
    pub(crate) fn told(&self) -> Hosts {
        match self {
            NetRecord::Namespace { names, .. } => {
                Hosts { hosts: names.clone(), resolvers: vec![RESOLVER] }
            }
            NetRecord::Passt { resolvers, .. } => {
                Hosts { hosts: Names::new(), resolvers: resolvers.clone() }
            }
        }
    }

    fn is_of(&self, found: &Link) -> bool {
        match self {
            NetRecord::Namespace { link, mac, address: _, names: _ } => {
                *link == found.name && *mac == written(&found.mac)
            }
            NetRecord::Passt { .. } => false,
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
) -> Result<T, NetError> {
    tokio::task::spawn_blocking(work).await.expect("running nft does not panic")
}
