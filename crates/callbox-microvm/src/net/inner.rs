//! How the network looks from inside: the same in every machine, so that one template serves all.

use std::net::Ipv4Addr;

/// The machine's address.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Its way out.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Where it asks for names, if it may.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Length of their common prefix.
pub const PREFIX: u8 = 24;
/// Hardware address of the machine's card.
pub const GUEST_MAC: [u8; 6] = [0x02, 0xcb, 0, 0, 0, 0x0f];
/// Hardware address of the gateway. A template remembers it, so it never changes.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0xcb, 0, 0, 0, 0x02];

/// A hardware address as people write it.
pub fn written(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
