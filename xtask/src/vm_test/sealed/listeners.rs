//! Listeners that answer everybody and remember who came: what they saw is the truth, whatever a
//! machine says of itself.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a listener that shall end may wait before it notices.
const BRIEFLY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Somebody who came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    pub way: &'static str,
    pub to: SocketAddr,
    /// What a datagram said, and the port that it came from.
    pub said: String,
    pub from: u16,
}

/// All who came.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<BTreeSet<Arrival>>>);

impl Seen {
    /// Who came since the last time that somebody asked.
    pub fn take(&self) -> BTreeSet<Arrival> {
        std::mem::take(&mut *self.0.lock().expect("nobody panics with it"))
    }

    fn note(&self, way: &'static str, to: SocketAddr, said: &[u8], from: u16) {
        let said = String::from_utf8_lossy(said).into_owned();
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        self.0.lock().expect("nobody panics with it").insert(Arrival { way, to, said, from });
    }
}

enum Ear {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// Listeners of one place, until dropped.
pub struct Listeners {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Where to listen.
pub struct At<'a> {
    /// TCP listens on every address of the place.
    pub tcp: &'a [u16],
    pub udp: &'a [u16],
    /// Datagrams are answered from the address that they were sent to.
    pub addresses: &'a [IpAddr],
    /// What is sent to groups, and to everybody.
    pub group: Option<(Ipv4Addr, u16)>,
}

impl Listeners {
    /// Opens them in the namespace of the calling thread.
    pub fn open(at: &At<'_>, seen: &Seen) -> anyhow::Result<Listeners> {
        let mut ears = Vec::new();
        for port in at.tcp {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port));
            let listener = listener.with_context(|| format!("cannot listen on port {port}"))?;
            listener.set_nonblocking(true)?;
            ears.push(Ear::Tcp(listener));
        }
        let places = at.addresses.iter().flat_map(|ip| at.udp.iter().map(move |port| (*ip, *port)));
        for (address, port) in places {
            let socket = UdpSocket::bind((address, port));
            let socket = socket.with_context(|| format!("cannot listen on {address}:{port}"))?;
            ears.push(Ear::Udp(socket));
        }
        if let Some((group, port)) = at.group {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED).context("cannot join")?;
            ears.push(Ear::Udp(socket));
        }
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), seen.clone());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                listen(&ears, &seen);
            }
        });
        Ok(Listeners { stop, thread: Some(thread) })
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(ears: &[Ear], seen: &Seen) {
    let mut fds: Vec<PollFd<'_>> = ears
        .iter()
        .map(|ear| match ear {
            Ear::Tcp(listener) => PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            Ear::Udp(socket) => PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN),
        })
        .collect();
    if poll(&mut fds, Some(&BRIEFLY)).is_err() {
        return;
    }
    let mut bytes = [0; 256];
    for (ear, fd) in ears.iter().zip(&fds) {
        if fd.revents().is_empty() {
            continue;
        }
        match ear {
            Ear::Tcp(listener) => {
                if let Ok((stream, _)) = listener.accept()
                    && let Ok(to) = stream.local_addr()
                {
                    seen.note("tcp", to, b"", 0);
                }
            }
            Ear::Udp(socket) => {
                if let (Ok((length, from)), Ok(to)) =
                    (socket.recv_from(&mut bytes), socket.local_addr())
                {
                    seen.note("udp", to, &bytes[..length], from.port());
                    let _ = socket.send_to(&bytes[..length], from);
                }
            }
        }
    }
}

/// Whether this address answers from where we are.
pub fn answers(way: &str, to: SocketAddr) -> bool {
    const PATIENCE: Duration = Duration::from_secs(5);
    if way == "tcp" {
        return std::net::TcpStream::connect_timeout(&to, PATIENCE).is_ok();
    }
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let ask = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_broadcast(true)?;
        socket.send_to(b"control", to)?;
        socket.recv_from(&mut [0; 16]).map(|(length, _)| length)
    };
    ask().is_ok()
}
