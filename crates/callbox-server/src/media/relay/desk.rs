//! The relay's side towards dispatchers: they come and go.

use std::{future::pending, io, path::PathBuf, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
    time::{Duration, timeout},
};

use super::super::{client::Close, end::End};
use super::words::{Broke, Standing, Wish, line};

/// Everything that was said to dispatchers and by them. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Desk(Arc<Words>);

struct Words {
    standing: watch::Sender<Standing>,
    bot: watch::Sender<Option<Bot>>,
    close: watch::Sender<Option<Close>>,
    /// Dispatchers that are connected. More than one only for the moment in which a dead one's
    /// connection is not closed yet.
    attended: watch::Sender<usize>,
}

impl Desk {
    /// Takes dispatchers on `listener` from now on.
    pub(super) fn open(listener: UnixListener) -> Desk {
        let desk = Desk(Arc::new(Words {
            standing: watch::Sender::default(),
            bot: watch::Sender::default(),
            close: watch::Sender::default(),
            attended: watch::Sender::default(),
        }));
        tokio::spawn(desk.clone().serve(listener));
        desk
    }

    async fn serve(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if of_our_user(&stream) => {
                    let desk = self.clone();
                    tokio::spawn(async move {
                        let _attending = Attending::new(&desk);
                        // How a dispatcher goes away does not matter here; the next one comes.
                        let _ = desk.attend(stream).await;
                    });
                }
                Ok(_) => {}
                // Out of descriptors, as a rule: not for long.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn attend(&self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut wishes = BufReader::new(reader).lines();
        let mut standing = self.0.standing.subscribe();
        standing.mark_changed();
        loop {
            tokio::select! {
                wish = wishes.next_line() => match wish? {
                    Some(wish) => self.hear(&wish),
                    None => return Ok(()),
                },
                // The sender lives in the desk, so this cannot fail.
                _ = standing.changed() => {
                    let now = standing.borrow_and_update().clone();
                    writer.write_all(&line(&now)).await?;
                }
            }
        }
    }

    fn hear(&self, wish: &str) {
        match serde_json::from_str(wish) {
            Ok(Wish::Carry { media, incarnation }) => {
                self.0.bot.send_replace(Some(Bot { media, incarnation }));
            }
            Ok(Wish::Close(close)) => drop(self.0.close.send_replace(Some(close))),
            // Of a newer dispatcher, which can live without it.
            Err(_) => {}
        }
    }

    /// The bot was heard.
    pub(super) fn say_audible(&self) {
        self.0.standing.send_modify(|standing| standing.audible = true);
    }

    /// The call ended.
    pub(super) fn say_end(&self, end: &End) {
        self.0.standing.send_modify(|standing| standing.end = Some(end.clone()));
    }

    /// The call waits for another bot.
    pub(super) fn say_broke(&self, broke: Broke) {
        self.0.standing.send_modify(|standing| standing.broke = Some(broke));
    }

    /// Where the bot is, as soon as one is ready that comes after machine `before`; or where a
    /// dispatcher says it is that knows of no machine but one.
    pub(super) async fn bot(&self, before: u32) -> Bot {
        told(&self.0.bot, |bot| bot.incarnation.is_none_or(|this| this > before)).await
    }

    /// What to tell the client, as soon as the session is over.
    pub(super) async fn close(&self) -> Close {
        told(&self.0.close, |_| true).await
    }

    /// What a dispatcher makes of an end, if there is one and it says so within `patience`.
    pub(super) async fn verdict(&self, patience: Duration) -> Option<Close> {
        let mut attended = self.0.attended.subscribe();
        tokio::select! {
            biased;
            close = timeout(patience, self.close()) => close.ok(),
            _ = attended.wait_for(|dispatchers| *dispatchers == 0) => None,
        }
    }

    /// Resolves when no dispatcher was there for this long.
    pub(super) async fn alone(&self, patience: Duration) {
        let mut attended = self.0.attended.subscribe();
        loop {
            let _ = attended.wait_for(|dispatchers| *dispatchers == 0).await;
            if timeout(patience, attended.wait_for(|dispatchers| *dispatchers > 0)).await.is_err() {
                return;
            }
        }
    }
}

async fn told<T: Clone>(by: &watch::Sender<Option<T>>, fits: impl Fn(&T) -> bool) -> T {
    let told = |told: &Option<T>| told.as_ref().is_some_and(&fits);
    match by.subscribe().wait_for(told).await.ok().and_then(|told| told.clone()) {
        Some(told) => told,
        // The sender lives in the desk.
        None => pending().await,
    }
}

/// Where a bot is.
#[derive(Clone)]
pub(super) struct Bot {
    /// The machine's media port, a unix socket.
    pub media: PathBuf,
    /// Which machine of the session it is, if the dispatcher says so.
    pub incarnation: Option<u32>,
}

/// The directory of the socket is closed to others; this is the second lock.
pub(super) fn of_our_user(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == ours)
}

/// Counts a dispatcher while it is there.
struct Attending<'a>(&'a Desk);

impl Attending<'_> {
    fn new(desk: &Desk) -> Attending<'_> {
        desk.0.attended.send_modify(|dispatchers| *dispatchers += 1);
        Attending(desk)
    }
}

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        self.0.0.attended.send_modify(|dispatchers| *dispatchers -= 1);
    }
}
