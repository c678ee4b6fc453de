//! The words of rtnetlink that a network is made with.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute, LinkMessage,
};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::NetError;

/// Talks to the kernel about the network namespace of the thread that opened it.
pub struct Links {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

/// One interface, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Vec<u8>,
    pub group: u32,
}

/// A pair of interfaces that are each other's other end.
pub struct Pair<'a> {
    /// The end in our own namespace.
    pub name: &'a str,
    pub mac: [u8; 6],
    pub group: u32,
    /// The end in the other namespace.
    pub peer: &'a str,
    pub peer_mac: [u8; 6],
    pub peer_namespace: BorrowedFd<'a>,
}

impl Links {
    /// Must be called inside a tokio runtime.
    pub fn open() -> Result<Links, NetError> {
        let opened = rtnetlink::new_connection().map_err(NetError::kernel("speak of networks"));
        let (connection, handle, _) = opened?;
        Ok(Links { handle, task: tokio::spawn(connection) })
    }

    /// Makes a pair, both ends down; `false` if our end's name is taken.
    pub async fn pair(&self, pair: &Pair<'_>) -> Result<bool, NetError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.peer)
            .address(pair.peer_mac.to_vec())
            .setns_by_fd(pair.peer_namespace.as_raw_fd())
            .build();
        let ours = LinkVeth::new(pair.name, pair.peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .address(pair.mac.to_vec())
            .link_group(pair.group)
            .build();
        match self.handle.link().add(ours).execute().await.map_err(cause) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(NetError::kernel("make a pair of links")(error)),
        }
    }

    /// The interface of this name, if there is one.
    pub async fn find(&self, name: &str) -> Result<Option<Link>, NetError> {
        let mut found = self.handle.link().get().match_name(name).execute();
        match found.try_next().await.map_err(cause) {
            Ok(message) => Ok(message.map(link)),
            Err(error) if error.raw_os_error() == Some(NO_DEVICE) => Ok(None),
            Err(error) => Err(NetError::kernel("find a link")(error)),
        }
    }

    /// All interfaces.
    pub async fn all(&self) -> Result<Vec<Link>, NetError> {
        let links = self.handle.link().get().execute().map_ok(link).try_collect().await;
        links.map_err(cause).map_err(NetError::kernel("list the links"))
    }

    /// Every IPv4 address of this namespace.
    pub async fn addresses(&self) -> Result<Vec<Ipv4Addr>, NetError> {
        let all = self.handle.address().get().execute().try_collect::<Vec<_>>().await;
        let all = all.map_err(cause).map_err(NetError::kernel("list the addresses"))?;
        let attributes = all.into_iter().flat_map(|message| message.attributes);
        let own = attributes.filter_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(address),
            _ => None,
        });
        Ok(own.collect())
    }

    /// Gives an interface a hardware address and brings it up.
    pub async fn up(&self, index: u32, mac: Option<[u8; 6]>) -> Result<(), NetError> {
        let mut change = LinkUnspec::new_with_index(index).up();
        if let Some(mac) = mac {
            change = change.address(mac.to_vec());
        }
        self.change(change.build(), "bring up a link").await
    }

    /// Keeps an interface from giving itself an IPv6 address when it comes up.
    pub async fn without_ipv6(&self, index: u32) -> Result<(), NetError> {
        let none = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
        let change = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(none)]));
        match self.change(change.build(), "keep ipv6 off a link").await {
            // A host without IPv6.
            Err(NetError::Kernel { source, .. }) if source.raw_os_error() == Some(NO_FAMILY) => {
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Gives an interface an address.
    pub async fn address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), NetError> {
        let request = self.handle.address().add(index, address.into(), prefix);
        request.execute().await.map_err(cause).map_err(NetError::kernel("set an address"))
    }

    /// Says for good which hardware address an address has, so that nobody has to ask.
    pub async fn neighbour(&self, index: u32, at: Ipv4Addr, mac: [u8; 6]) -> Result<(), NetError> {
        let request = self.handle.neighbours().add(index, at.into()).link_layer_address(&mac);
        request.execute().await.map_err(cause).map_err(NetError::kernel("set a neighbour"))
    }

    /// Sends everything that has no other way to `gateway`, which need not be in any network.
    pub async fn default_route(&self, index: u32, gateway: Ipv4Addr) -> Result<(), NetError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .output_interface(index)
            .gateway(gateway)
            .onlink()
            .build();
        let request = self.handle.route().add(route).execute().await;
        request.map_err(cause).map_err(NetError::kernel("set the way out"))
    }

    /// Sends what is for `address` straight into the interface.
    pub async fn route_to(&self, index: u32, address: Ipv4Addr) -> Result<(), NetError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        let request = self.handle.route().add(route).execute().await;
        request.map_err(cause).map_err(NetError::kernel("set the way to a machine"))
    }

    /// Removes an interface, and with it its other end; one that is gone is fine.
    pub async fn remove(&self, index: u32) -> Result<(), NetError> {
        match self.handle.link().del(index).execute().await.map_err(cause) {
            Err(error) if error.raw_os_error() == Some(NO_DEVICE) => Ok(()),
            outcome => outcome.map_err(NetError::kernel("remove a link")),
        }
    }

    async fn change(&self, message: LinkMessage, doing: &'static str) -> Result<(), NetError> {
        let request = self.handle.link().change(message).execute().await;
        request.map_err(cause).map_err(NetError::kernel(doing))
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const NO_DEVICE: i32 = rustix::io::Errno::NODEV.raw_os_error();
const NO_FAMILY: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();

fn link(message: LinkMessage) -> Link {
    let mut link =
        Link { index: message.header.index, name: String::new(), mac: Vec::new(), group: 0 };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::Group(group) => link.group = group,
            _ => {}
        }
    }
    link
}

/// The kernel's own word, where there is one.
fn cause(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        error => io::Error::other(error),
    }
}
