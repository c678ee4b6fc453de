//! The stage of a test: a host of its own, and an internet that answers at every address,
//! forbidden ones too, so that only the rules can be what keeps a machine from them.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use callbox_microvm::net::{NetConfig, Networks, Plug};
use callbox_microvm::{Network, net::Allow};
use nix::sched::{CloneFlags, unshare};

use crate::place::{Guest, Place, ip};
use crate::support::SKIP;

/// Addresses on the internet.
pub const OPEN: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 7), Ipv4Addr::new(198, 51, 100, 7)];
/// The name of the first of them, as the host's resolver has it, and of a place inside.
pub const NAME: &str = "api.example.com";
pub const INNER_NAME: &str = "inner.example.com";
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
/// On the internet too, but the configuration denies it.
pub const DENIED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
/// Places that no machine may reach, though they answer to the host.
pub const FORBIDDEN: [Ipv4Addr; 11] = [
    Ipv4Addr::new(10, 9, 9, 9),
    Ipv4Addr::new(100, 64, 9, 9),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(172, 16, 9, 9),
    Ipv4Addr::new(192, 0, 0, 9),
    Ipv4Addr::new(192, 168, 9, 9),
    Ipv4Addr::new(198, 18, 9, 9),
    Ipv4Addr::new(240, 9, 9, 9),
    DENIED,
];
/// The host's own: in its network, private, and one of the internet.
pub const HOST: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(203, 0, 113, 200)];
pub const TCP: u16 = 443;
pub const UDP: u16 = 9000;

/// Long enough for an answer on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// For what must not be answered: most of it is refused at once, and what arrived in spite of
/// that is seen at the other end however late.
const BRIEFLY: Duration = Duration::from_millis(300);

pub struct Stage {
    pub internet: Place,
    /// Who came to the internet: protocol, from, to.
    pub came: Seen,
    /// Who came to the host.
    pub intruded: Seen,
    pub data: tempfile::TempDir,
}

pub type Seen = Arc<Mutex<Vec<String>>>;

/// Plays `test` on a stage, in a thread whose namespace is the host's.
pub fn play(test: impl AsyncFnOnce(Stage) + Send + 'static) {
    play_with(|| (), async |stage, ()| test(stage).await);
}

/// The same, with what `set` makes before there is a stage.
pub fn play_with<T: Send + 'static>(
    set: impl FnOnce() -> T,
    test: impl AsyncFnOnce(Stage, T) + Send + 'static,
) {
    if std::env::var(SKIP).is_ok_and(|value| value == "1") {
        eprintln!("\n*** NETWORKS ARE NOT TESTED: {SKIP}=1 ***\n");
        return;
    }
    let lacking = "no networks can be made here";
    assert!(
        rustix::process::geteuid().is_root(),
        "{lacking}: not root; set {SKIP}=1 to go without"
    );
    let requisites = set();
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root may");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async { test(Stage::set(), requisites).await });
    });
    if let Err(failed) = thread.join() {
        std::panic::resume_unwind(failed);
    }
}

impl Stage {
    fn set() -> Stage {
        let internet = Place::new();
        ip("link set lo up");
        ip(&format!("link add eth0 type veth peer name eth0 netns {}", internet.id));
        ip("addr add 192.0.2.2/24 dev eth0");
        ip("-6 addr add 2001:db8::2/64 dev eth0 nodad");
        ip("link set eth0 up");
        for own in &HOST[1..] {
            ip(&format!("addr add {own}/32 dev lo"));
        }
        internet.ip("addr add 192.0.2.1/24 dev eth0");
        internet.ip("-6 addr add 2001:db8::1/64 dev eth0 nodad");
        internet.ip("link set eth0 up");
        for address in OPEN.iter().chain(&FORBIDDEN).chain([&RESOLVER]) {
            internet.ip(&format!("addr add {address}/32 dev lo"));
        }
        ip("route add default via 192.0.2.1");
        let data = tempfile::tempdir().expect("tempdir");
        let hosts = data.path().join("hosts");
        std::fs::write(&hosts, format!("{} {NAME}\n10.9.9.9 {INNER_NAME}\n", OPEN[0]))
            .expect("write");
        for arguments in ["--make-rprivate /", &format!("--bind {} /etc/hosts", hosts.display())] {
            let mount = Command::new("mount").args(arguments.split_whitespace()).status();
            assert!(mount.expect("there is mount").success(), "mount {arguments}");
        }
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("a host's setting");
        let (came, intruded) = (Seen::default(), Seen::default());
        let everybody = [Ipv4Addr::new(192, 0, 2, 1), RESOLVER];
        let places = OPEN.into_iter().chain(FORBIDDEN).chain(everybody).collect::<Vec<_>>();
        let seen = Arc::clone(&came);
        internet.run(move || listen(&places, &seen));
        listen(&HOST.into_iter().chain([Ipv4Addr::LOCALHOST]).collect::<Vec<_>>(), &intruded);
        Stage { internet, came, intruded, data }
    }

    pub fn config(&self) -> NetConfig {
        NetConfig {
            dns: vec![RESOLVER],
            deny: vec!["203.0.113.64/26".parse().expect("a block")],
            ..NetConfig::default()
        }
    }

    pub fn networks(&self) -> Networks {
        Networks::open(self.data.path(), self.config()).expect("root may")
    }

    /// Another deployment on the same host.
    pub fn foreign_networks(&self) -> Networks {
        Networks::open(&self.data.path().join("foreign"), self.config()).expect("root may")
    }
}

pub async fn plug(networks: &Networks, allow: &[&str]) -> Plug {
    let allow: Vec<Allow> = allow.iter().map(|one| one.parse().expect("an entry")).collect();
    let made = networks.make(&Network::Internet { allow }).await;
    made.unwrap_or_else(|error| panic!("no network: {error:?}")).expect("one was asked for")
}

pub async fn guest(networks: &Networks, allow: &[&str]) -> Guest {
    Guest::behind(plug(networks, allow).await)
}

/// Answers every connection and datagram at these addresses with its first bytes.
pub fn listen(addresses: &[Ipv4Addr], seen: &Seen) {
    for address in addresses {
        for port in [TCP, 80] {
            let listener = TcpListener::bind((*address, port)).expect("ours");
            let seen = Arc::clone(seen);
            std::thread::spawn(move || {
                let mut open = Vec::new();
                while let Ok((stream, from)) = listener.accept() {
                    note(&seen, "tcp", from, listener.local_addr());
                    open.push(stream);
                }
            });
        }
        for port in [UDP, 53] {
            let socket = UdpSocket::bind((*address, port)).expect("ours");
            let seen = Arc::clone(seen);
            std::thread::spawn(move || {
                let mut bytes = [0; 1500];
                while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    note(&seen, "udp", from, socket.local_addr());
                    let _ = socket.send_to(&bytes[..length], from);
                }
            });
        }
    }
}

fn note(seen: &Seen, what: &str, from: SocketAddr, to: std::io::Result<SocketAddr>) {
    let to = to.expect("bound");
    seen.lock().expect("whole").push(format!("{what} {} -> {to}", from.ip()));
}

/// What was seen, sorted, once there is this much of it: a connection stands before it is noted.
pub fn seen(seen: &Seen, at_least: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    while seen.lock().expect("whole").len() < at_least && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let mut all = seen.lock().expect("whole").clone();
    all.sort();
    all
}

/// Whether a connection comes about.
pub fn connects(to: Ipv4Addr, port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((to, port)), BRIEFLY).is_ok()
}

/// Whether a datagram is answered, when the answer is expected.
pub fn answers(to: Ipv4Addr, port: u16) -> bool {
    exchange(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), to, port, PATIENCE)
}

/// Whether a datagram is answered, when no answer is expected.
pub fn answers_after_all(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> bool {
    exchange(SocketAddrV4::new(from, 0), to, port, BRIEFLY)
}

fn exchange(from: SocketAddrV4, to: Ipv4Addr, port: u16, patience: Duration) -> bool {
    let socket = UdpSocket::bind(from).expect("ours");
    socket.set_read_timeout(Some(patience)).expect("a time");
    let sent = socket.connect((to, port)).and_then(|()| socket.send(b"hello"));
    sent.is_ok() && socket.recv(&mut [0; 16]).is_ok()
}
