//! Being with a relay: hearing how its call stands, telling it where the bot is and when to end.

use std::sync::Arc;

use callbox_core::{EventKind, Session};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    time::{Duration, Instant, timeout},
};

use super::{
    super::{LAST_WORD, Place, client::Close, here::next_bot},
    hand_over::Relay,
    process::GOODBYE,
    words::{Standing, Wish, line},
};
use crate::plane::{Handle, Plane, over};

/// After a restart, the machine's own account of an end needs a new connection to the machine:
/// this is how long one is waited for, from the restart on.
const AFTER_RESTART: Duration = Duration::from_secs(20);

/// Finds the relay of a session that an earlier dispatcher left, and follows it from now on.
/// False when there is none.
pub async fn take_up(plane: &Arc<Plane>, handle: &Handle) -> bool {
    let session = handle.session.borrow().id;
    let Some(place) = Place::take(handle) else { return false };
    let Some(stream) = plane.relays.find(session).await else {
        plane.relays.end(session).await;
        return false;
    };
    plane.logs.writer(session).say("a new dispatcher took up the call, which went on by itself");
    let relay = Relay { session, stream };
    plane.spawn(follow(Arc::clone(plane), place, relay, Some(Instant::now() + AFTER_RESTART)));
    true
}

/// Follows a relay until it is gone, or is another dispatcher's. A way to the machine comes until
/// `connected_by`, if there is none yet: its account of an end is waited for until then.
pub async fn follow(plane: Arc<Plane>, place: Place, relay: Relay, connected_by: Option<Instant>) {
    let Relay { session, stream } = relay;
    let _following = plane.relays.following(session);
    place.set_relayed(true);
    let (reader, writer) = stream.into_split();
    let follower = Follower {
        plane: &plane,
        handle: &place.0,
        said: BufReader::new(reader).lines(),
        wishes: writer,
        connected_by,
        heard: None,
    };
    if follower.run().await {
        plane.relays.end(session).await;
    }
}

struct Follower<'a> {
    plane: &'a Plane,
    handle: &'a Handle,
    said: Lines<BufReader<OwnedReadHalf>>,
    wishes: OwnedWriteHalf,
    connected_by: Option<Instant>,
    /// How the call stood when the relay last said so; nothing before the client was in.
    heard: Option<Standing>,
}

impl Follower<'_> {
    /// False when the driver went and left the call to whoever comes next.
    async fn run(mut self) -> bool {
        let handle = self.handle;
        let ending = handle.until(over);
        let ready = next_bot(handle, 0);
        tokio::pin!(ending, ready);
        loop {
            tokio::select! {
                // An end is news before the session's own end is: it is what the log should say.
                biased;
                said = self.said.next_line() => match said {
                    Ok(Some(text)) => self.hear(&text).await,
                    _ => {
                        self.lost().await;
                        return true;
                    }
                },
                ended = &mut ending => {
                    if ended.is_some() {
                        self.dismiss().await;
                    }
                    return ended.is_some();
                }
                bot = &mut ready => {
                    self.point_to_the_bot(&bot).await;
                    ready.set(next_bot(handle, bot.incarnation));
                }
            }
        }
    }

    async fn hear(&mut self, text: &str) {
        let Ok(standing) = serde_json::from_str::<Standing>(text) else {
            tracing::warn!("a relay said something that has no meaning");
            return;
        };
        let before = self.heard.replace(standing.clone());
        if before.is_none() {
            self.handle.tell(EventKind::ClientJoined);
        }
        if standing.audible {
            self.handle.tell(EventKind::Audible);
        }
        let (mut broke_before, mut end_before) = (None, None);
        if let Some(before) = before {
            (broke_before, end_before) = (before.broke, before.end);
        }
        if let Some(broke) = &standing.broke
            && broke_before.as_ref() != Some(broke)
        {
            broke.end.tell(self.handle, Some(broke.incarnation), self.patience()).await;
        }
        if let Some(end) = &standing.end
            && end_before.is_none()
        {
            end.tell(self.handle, None, self.patience()).await;
        }
    }

    /// How long the machine's own account of an end is waited for.
    fn patience(&self) -> Duration {
        let connected = self.handle.link.borrow().is_some();
        patience(connected, self.connected_by, Instant::now())
    }

    async fn point_to_the_bot(&mut self, session: &Session) {
        let provider = self.plane.providers.get(session.provider.as_str());
        let media = provider
            .zip(session.machine_name())
            .and_then(|(provider, name)| provider.media_port(&name));
        let incarnation = Some(session.incarnation);
        match media {
            Some(media) => self.say(&Wish::Carry { media, incarnation }).await,
            // The configuration changed under the call.
            None => tracing::error!("the way to the bot of a call is not known any more"),
        }
    }

    /// The session is over: the client hears why, from its relay.
    async fn dismiss(mut self) {
        self.say(&Wish::Close(Close::of(self.handle))).await;
        let gone = async { while let Ok(Some(_)) = self.said.next_line().await {} };
        let _ = timeout(GOODBYE, gone).await;
    }

    /// The relay is gone without having been told to go.
    async fn lost(self) {
        let known = self.heard.is_some() || self.handle.session.borrow().moments.joined.is_some();
        if !known {
            // The client was never in. It may come again.
            tracing::warn!("a relay ended before it had its call");
            return;
        }
        // The client's connection broke with it. If the machine is at an end too, that is why.
        if timeout(self.patience(), self.handle.until(over)).await.is_err() {
            let detail = "the process that carried the call ended";
            self.handle.tell(EventKind::ClientLeft { detail: detail.into() });
        }
    }

    /// A relay that cannot be told is gone, which is seen where it is listened to.
    async fn say(&mut self, wish: &Wish) {
        let _ = self.wishes.write_all(&line(wish)).await;
    }
}

/// What a machine that we are connected to has to say comes soon.
fn patience(connected: bool, connected_by: Option<Instant>, now: Instant) -> Duration {
    let to_come = connected_by.filter(|_| !connected).map(|by| by.saturating_duration_since(now));
    to_come.unwrap_or_default().max(LAST_WORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machine_that_is_not_connected_yet_is_waited_for_long() {
        let now = Instant::now();
        let by = Some(now + AFTER_RESTART);
        assert_eq!(patience(false, by, now), AFTER_RESTART);
        assert_eq!(patience(true, by, now), LAST_WORD, "it can tell");
        let late = now + AFTER_RESTART;
        assert_eq!(patience(false, by, late), LAST_WORD, "it had its time");
        assert_eq!(patience(false, None, now), LAST_WORD);
    }
}
