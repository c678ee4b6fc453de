//! Ways from a machine to single ports of this host, over its agent's link.
//!
//! A machine's network never reaches the host. A dispatcher that serves on this host's loopback
//! is met all the same, at the same address: what connects to that port of the machine's own
//! loopback is led out of it here.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use callbox_link::Link;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A port of the machine's loopback, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where the machine connects to: `127.0.0.1` and this port.
    pub inside: u16,
    /// Where it then is.
    pub outside: SocketAddr,
}

impl FromStr for Way {
    type Err = String;

    /// `7860` for the same port of this host's loopback, or `7860=192.0.2.1:80`.
    fn from_str(text: &str) -> Result<Way, String> {
        let wrong = || format!("{text:?} is no way like \"7860\" or \"7860=127.0.0.1:7861\"");
        let (inside, outside) = match text.split_once('=') {
            Some((inside, outside)) => (inside, Some(outside)),
            None => (text, None),
        };
        let inside: u16 = inside.parse().map_err(|_| wrong())?;
        let outside = match outside {
            Some(outside) => outside.parse().map_err(|_| wrong())?,
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, inside)),
        };
        if inside == 0 || outside.port() == 0 {
            return Err(wrong());
        }
        Ok(Way { inside, outside })
    }
}

/// Leads one connection after the other, as long as the link lives.
pub async fn lead(link: Link, way: Way) {
    let mut carried = JoinSet::new();
    loop {
        let mut inside = match link.inward(way.inside).await {
            Ok(tunnel) => tunnel,
            Err(_) if link.is_closed() => return,
            Err(error) => {
                tracing::warn!(port = way.inside, %error, "no way out of the machine");
                return;
            }
        };
        while carried.try_join_next().is_some() {}
        carried.spawn(async move {
            match TcpStream::connect(way.outside).await {
                Ok(mut outside) => {
                    // Audio waits for nothing.
                    let _ = outside.set_nodelay(true);
                    // Either side may end it at any moment; there is nobody to tell.
                    let _ = copy_bidirectional(&mut inside, &mut outside).await;
                }
                // The machine sees its connection end.
                Err(error) => tracing::debug!(to = %way.outside, %error, "nobody is there"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_read_or_refused() {
        let outside = "127.0.0.1:7860".parse().expect("an address");
        assert_eq!("7860".parse(), Ok(Way { inside: 7860, outside }));
        assert_eq!("80=127.0.0.1:7860".parse(), Ok(Way { inside: 80, outside }));
        for bad in ["", "0", "80=", "80=here", "80=127.0.0.1:0", "127.0.0.1:80"] {
            assert!(bad.parse::<Way>().is_err(), "{bad:?}");
        }
    }
}
