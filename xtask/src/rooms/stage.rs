//! Where calls in rooms are made: a host of its own with a dispatcher and its machines, and an
//! internet with the servers and the client. Machines reach nothing else, as anywhere.
//!
//! ```text
//! machine ─ its network ─ HOST (the dispatcher) ── eth0 ── INTERNET (servers, client)
//! ```

use crate::place::Place;

/// Where the dispatcher is, for the internet.
pub const HOST: &str = "192.0.2.2";
/// Where the servers are.
pub const INTERNET: &str = "203.0.113.7";

pub struct Stage {
    pub host: Place,
    pub internet: Place,
}

impl Stage {
    pub fn set() -> anyhow::Result<Stage> {
        let (host, internet) = (Place::new()?, Place::new()?);
        host.ip(&format!("link add eth0 type veth peer name eth0 netns {}", internet.path()))?;
        // One address each: of several, a media server that is told its own takes one for the
        // other and hears nobody. And not at the loopback interface, whose addresses it leaves out.
        for (place, own, route) in
            [(&host, HOST, "default".to_owned()), (&internet, INTERNET, format!("{HOST}/32"))]
        {
            place.ip(&format!("addr add {own}/32 dev eth0"))?;
            place.ip("link set eth0 up")?;
            place.ip(&format!("route add {route} dev eth0"))?;
        }
        Ok(Stage { host, internet })
    }
}
