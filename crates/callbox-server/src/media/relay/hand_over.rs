//! From this process to a relay: the client's connection, in one message.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    os::unix::net::{UnixListener, UnixStream as StdStream},
    process::Stdio,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use callbox_core::{Session, SessionId};
use callbox_machines::process::Identity;
use tokio::{
    net::UnixStream,
    process::{Child, Command},
};

use super::{
    super::client::Line,
    descriptors,
    keep::Relays,
    words::{Order, line},
};
use crate::{config::Bot, plane::Plane};

/// Ourselves, even when the file on disk was replaced or removed meanwhile.
const OURSELVES: &str = "/proc/self/exe";

/// A relay that has, or is about to get, its call.
pub struct Relay {
    pub(super) session: SessionId,
    pub(super) stream: UnixStream,
}

/// No relay has the call.
pub struct NotHandedOver {
    /// Why.
    pub error: io::Error,
    /// The client's connection, unless it was lost on the way.
    pub line: Option<Line>,
}

/// Starts a relay and gives it the client's connection.
pub async fn hand_over(
    plane: &Plane,
    bot: &Bot,
    session: &Session,
    line: Line,
) -> Result<Relay, NotHandedOver> {
    let relays = &plane.relays;
    // None is there, as the client's seat was free; but two would be worse than a moment's wait.
    relays.end(session.id).await;
    let started = start(relays, session.id);
    let (listener, stdin) = match started {
        Ok(started) => started,
        Err(error) => {
            relays.end(session.id).await;
            return Err(NotHandedOver { error, line: Some(line) });
        }
    };
    let order = Order {
        session: session.id.to_string(),
        port: bot.machine.run.port,
        body: session.body.clone(),
        max_held_bytes: plane.config.max_held_bytes,
        alone_ms: u64::try_from(plane.config.orphan_after.as_millis()).unwrap_or(u64::MAX),
        first: STANDARD.encode(&line.first),
        restarts: session.restarts.most > 0,
    };
    let given = async {
        descriptors::send(stdin, &self::line(&order), [line.stream.as_fd(), listener.as_fd()])
            .await?;
        // From here on the call is the relay's. Our copies of its descriptors go with this
        // function: while they are open, nobody would see the relay's end.
        drop(listener);
        UnixStream::connect(relays.socket(session.id)).await
    };
    match given.await {
        Ok(stream) => Ok(Relay { session: session.id, stream }),
        Err(error) => {
            relays.end(session.id).await;
            Err(NotHandedOver { error, line: None })
        }
    }
}

/// Binds its socket, starts its process, and writes down which it is: before it has anything.
fn start(relays: &Relays, session: SessionId) -> io::Result<(UnixListener, UnixStream)> {
    relays.prepare()?;
    let listener = UnixListener::bind(relays.socket(session))?;
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    let child = Command::new(OURSELVES)
        .arg0("callbox")
        // The session is for people who look at the list of processes.
        .args(["relay", &session.to_string()])
        // Nothing of the dispatcher's environment, where secrets are, belongs there.
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Its own group: Ctrl-C at the dispatcher's terminal is not for the calls.
        .process_group(0)
        // Nor does it end with us. Until it has its order, it ends when we hang up.
        .kill_on_drop(false)
        .spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let identity = pid.map_or(Ok(None), Identity::of)?;
    match identity {
        Some(identity) => relays.write(session, &identity)?,
        None => return Err(io::Error::other("the relay ended at once")),
    }
    reap(session, child);
    Ok((listener, ours))
}

/// Collects the exit status, as long as we are the parent.
fn reap(session: SessionId, mut child: Child) {
    tokio::spawn(async move {
        let status = child.wait().await.map_or_else(|e| e.to_string(), |s| s.to_string());
        tracing::debug!(session.id = %session, status, "a relay ended");
    });
}
