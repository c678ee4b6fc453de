//! The bot of the test with real machines: tries to reach every address and name that it is given, by
//! every way there is, and says which it reached. Compiled for the guest by the test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// Enough for an answer in a machine under software emulation.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() {
    for place in std::env::args().skip(1) {
        let Ok(place) = place.parse::<Ipv4Addr>() else {
            if TcpStream::connect((place.as_str(), 443)).is_ok() {
                println!("reached=name {place}");
            }
            continue;
        };
        let mapped = IpAddr::V6(place.to_ipv6_mapped());
        let translated = IpAddr::V6(format!("64:ff9b::{place}").parse().expect("an address"));
        for (way, address) in [("tcp", place.into()), ("mapped", mapped), ("nat64", translated)] {
            if TcpStream::connect_timeout(&SocketAddr::new(address, 443), PATIENCE).is_ok() {
                println!("reached={way} {place}");
            }
        }
        if echoes(place) {
            println!("reached=udp {place}");
        }
    }
    for path in ["/proc/net/if_inet6", "/proc/net/ipv6_route"] {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for line in text.lines().filter(|line| line.ends_with("eth0")) {
            println!("six={line}");
        }
    }
    println!("done=yes");
    // The end of the bot would be the end of its session.
    loop {
        std::thread::park();
    }
}

fn echoes(place: Ipv4Addr) -> bool {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    let sent = socket.connect((place, 9000)).and_then(|()| socket.send(b"hello"));
    sent.is_ok() && socket.recv(&mut [0; 16]).is_ok()
}
