//! Without root: a process of passt per machine, on the other end of a socket.
//!
//! passt opens ordinary sockets of ours for the machine, in a sandbox of its own. Its mapping of
//! the gateway to this host's loopback is off, no port is forwarded inwards, and it ends with its
//! machine, as that closes the socket. What it does not do says [`super::way::NOT_BY_PASST`].

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use tokio::process::{Child, Command};

use super::inner::{GATEWAY, GATEWAY_MAC, GUEST, PREFIX, written};
use super::{Allow, NetConfig, NetError, NetRecord, Plug, Wire, resolvers};
use crate::run::Tail;
use crate::run::process::Identity;

/// The descriptor under which passt finds its socket.
const SOCKET_FD: i32 = 3;
/// How long a killed passt may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Networks by passt.
#[derive(Debug)]
pub struct Passt {
    program: PathBuf,
    resolvers: Vec<Ipv4Addr>,
}

impl Passt {
    pub fn open(program: PathBuf, config: &NetConfig) -> Result<Passt, NetError> {
        if !config.deny.is_empty() {
            return Err(NetError::Config(
                "local.network.deny cannot be kept without root: passt has no such rules".into(),
            ));
        }
        Ok(Passt { program, resolvers: resolvers::choose(config)? })
    }

    /// Must be called inside a tokio runtime.
    pub fn make(&self, allow: &[Allow]) -> Result<Plug, NetError> {
        if !allow.is_empty() {
            return Err(NetError::Unavailable(
                "an allow-list takes root: passt lets everything out; hint: run callbox as root, \
                 or remove `allow`"
                    .into(),
            ));
        }
        let failed = |error: io::Error| NetError::Passt(error.to_string());
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let socket = FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: SOCKET_FD };
        let mut command = Command::new(&self.program);
        command
            .args(Passt::arguments())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Its own group: Ctrl-C at the dispatcher's terminal is not for the machines.
            .process_group(0)
            .kill_on_drop(false);
        command.fd_mappings(vec![socket]).expect("one descriptor has one number");
        let mut child = command.spawn().map_err(failed)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let process = Identity::of(pid).map_err(failed)?;
        let process = process.ok_or_else(|| NetError::Passt("it ended at once".into()))?;
        let said = Tail::follow(child.stderr.take().expect("stderr was asked for as a pipe"));
        reap(child, said);
        let record = NetRecord::Passt { process, resolvers: self.resolvers.clone() };
        Ok(Plug { card: ours.into(), wire: Wire::Stream, record })
    }

    fn arguments() -> Vec<String> {
        let mut line: Vec<String> = [
            // One process, the one that we started.
            "--foreground",
            "--quiet",
            "--ipv4-only",
            // Nothing of the host under the gateway's address, no port inwards.
            "--no-map-gw",
            "--tcp-ports=none",
            "--udp-ports=none",
            // The agent sets the machine's addresses.
            "--no-dhcp",
        ]
        .map(str::to_owned)
        .into();
        line.push(format!("--fd={SOCKET_FD}"));
        line.push(format!("--address={GUEST}"));
        line.push(format!("--netmask={PREFIX}"));
        line.push(format!("--gateway={GATEWAY}"));
        line.push(format!("--mac-addr={}", written(&GATEWAY_MAC)));
        line.push("--mtu=1500".to_owned());
        // Not `--dns-forward`: passt of Debian 12 forwards to the host's loopback then, whatever
        // `--dns` says. The machine is told its resolvers, and reaches them as everything else.
        line
    }
}

/// Kills a passt if it still is the one that we started, and waits until it is gone.
pub async fn end(process: &Identity) -> io::Result<()> {
    let Some(alive) = process.open()? else { return Ok(()) };
    alive.kill()?;
    tokio::time::timeout(KILL_TIMEOUT, alive.ended()).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("pid {} does not end", process.pid))
    })
}

/// Collects the exit status, and says so where it ended otherwise than with its machine.
fn reap(mut child: Child, said: Tail) {
    tokio::spawn(async move {
        match child.wait().await {
            Ok(status) if status.success() => {}
            Ok(status) => {
                said.ended().await;
                tracing::warn!(%status, said = said.last(300), "a machine has lost its network: passt ended");
            }
            Err(error) => tracing::debug!(%error, "passt cannot be waited for"),
        }
    });
}
