//! What there is of relays on this host: a socket and a record each, in one directory.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use callbox_core::{EndCode, SessionId};
use callbox_machines::process::Identity;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::watch,
    time::{Duration, timeout},
};

use super::super::client::Close;
use super::{
    desk::of_our_user,
    process::GOODBYE,
    words::{Wish, line},
};

/// How long a killed relay may take to end.
const KILL: Duration = Duration::from_secs(5);

/// The relays of a data directory.
#[derive(Debug)]
pub struct Relays {
    dir: PathBuf,
    followed: watch::Sender<HashSet<SessionId>>,
}

impl Relays {
    /// Of this data directory.
    pub fn of(data_dir: &Path) -> Relays {
        // A relay is at home in `/`.
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        Relays { dir: data_dir.join("relays"), followed: watch::Sender::default() }
    }

    pub(super) fn socket(&self, session: SessionId) -> PathBuf {
        self.dir.join(format!("{session}.sock"))
    }

    /// Makes the directory. The data directory is ours alone already; this is the second lock.
    pub(super) fn prepare(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)
    }

    /// Writes down which process it is, in one step.
    pub(super) fn write(&self, session: SessionId, process: &Identity) -> io::Result<()> {
        let record = record_beside(&self.socket(session));
        let new = record.with_extension("new");
        fs::write(&new, line(process)).and_then(|()| fs::rename(&new, &record))
    }

    /// Removes its files, of a relay that is gone.
    fn forget(&self, session: SessionId) {
        let socket = self.socket(session);
        let record = record_beside(&socket);
        for path in [&record.with_extension("new"), &socket, &record] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(session.id = %session, %error, "a relay's file is left");
                }
                _ => {}
            }
        }
    }

    /// The relay of this session, if one runs.
    pub(super) async fn find(&self, session: SessionId) -> Option<UnixStream> {
        let found = UnixStream::connect(self.socket(session)).await.ok();
        found.filter(of_our_user)
    }

    /// Ends the process, if it still runs, and removes its files. True when nothing is left.
    pub(super) async fn end(&self, session: SessionId) -> bool {
        let record = fs::read(record_beside(&self.socket(session))).ok();
        let process = record.and_then(|text| serde_json::from_slice::<Identity>(&text).ok());
        if let Some(Ok(Some(alive))) = process.map(|process| process.open()) {
            let killed = async {
                alive.kill()?;
                timeout(KILL, alive.ended()).await.map_err(io::Error::from)
            };
            if let Err(error) = killed.await {
                tracing::error!(session.id = %session, %error, "a relay does not end");
                return false;
            }
        }
        self.forget(session);
        true
    }

    /// Whether somebody here is with the relay of this session, who ends it when it is time.
    pub fn is_followed(&self, session: SessionId) -> bool {
        self.followed.borrow().contains(&session)
    }

    /// Has the relay of a session say good-bye and end, and ends it if it does not. True when
    /// nothing is left of it.
    pub async fn retire(&self, session: SessionId) -> bool {
        if let Some(stream) = self.find(session).await {
            let reason = EndCode::DispatcherRestarted.as_str().to_owned();
            let _ = timeout(GOODBYE, dismiss(stream, Close { code: 1011, reason })).await;
        }
        self.end(session).await
    }

    /// The sessions of which there is a relay, or something of one.
    pub fn sessions(&self) -> HashSet<SessionId> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let session = |entry: fs::DirEntry| {
            SessionId::parse(entry.path().file_name()?.to_str()?.split('.').next()?)
        };
        entries.filter_map(session).collect()
    }

    /// Waits until every relay that is followed from here has ended, at a shutdown.
    pub async fn settle(&self, limit: Duration) {
        let mut followed = self.followed.subscribe();
        if timeout(limit, followed.wait_for(HashSet::is_empty)).await.is_err() {
            tracing::error!("relays did not end in time; the next dispatcher ends them");
        }
    }

    pub(super) fn following(&self, session: SessionId) -> Following<'_> {
        self.followed.send_modify(|followed| {
            followed.insert(session);
        });
        Following(self, session)
    }
}

/// Marks a relay as followed until it is dropped.
pub(super) struct Following<'a>(&'a Relays, SessionId);

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.0.followed.send_modify(|followed| {
            followed.remove(&self.1);
        });
    }
}

/// Says the last word, and waits until the relay has gone.
async fn dismiss(mut stream: UnixStream, close: Close) -> io::Result<()> {
    stream.write_all(&line(&Wish::Close(close))).await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(|_| ())
}

/// The record of the relay with this socket.
pub(super) fn record_beside(socket: &Path) -> PathBuf {
    socket.with_extension("json")
}
