//! One call: the client's websocket on one side, the bot's on the other. The same in the
//! dispatcher and in a relay; neither knows sessions here.

use std::{convert::Infallible, future::Future};

use futures::{SinkExt as _, StreamExt as _};
use tokio::time::{Duration, Instant, interval_at, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{
    LAST_WORD, bot_socket::BotSocket, client::Client, end::End, frames::carries_audio, held::Held,
};

/// How long a bot may refuse to take a message.
const STUCK: Duration = Duration::from_secs(30);
/// How often a client is asked whether it is there, and after how long without any sign of it
/// (an answer is one) it counts as gone: lost networks and sleeping laptops say no good-bye.
const PING: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(65);

/// A call on its way. It may have several bots, one after the other; its client is one.
pub(super) struct Call {
    client: Client,
    held: Held,
    max_held: usize,
    /// Its bot is being replaced: what is said meanwhile is said to nobody.
    between: bool,
}

impl Call {
    /// With a client, of whose messages up to `max_held` bytes are held for a bot to come.
    pub(super) fn new(client: Client, max_held: usize) -> Call {
        Call { client, held: Held::new(max_held), max_held, between: false }
    }

    /// Waits for `what`, and holds what the client sends meanwhile. Can be dropped at any point.
    ///
    /// # Errors
    /// How the client ended the call.
    pub(super) async fn hold<T>(&mut self, what: impl Future<Output = T>) -> Result<T, End> {
        tokio::pin!(what);
        loop {
            tokio::select! {
                answer = &mut what => return Ok(answer),
                message = self.client.next() => {
                    let message = from_client(message)?;
                    if self.between && carries_audio(&message) {
                        continue;
                    }
                    let held = self.held.push(message);
                    held.map_err(|full| End::Overflow { detail: full.to_string() })?;
                }
            }
        }
    }

    /// Carries it until client or bot end it. What was held is delivered first. `audible` is told
    /// once, at the bot's first audio. Can be dropped at any point; the client can still be told
    /// why, then.
    pub(super) async fn carry(&mut self, bot: BotSocket, audible: impl FnOnce()) -> End {
        self.between = false;
        let held = std::mem::replace(&mut self.held, Held::new(self.max_held));
        pump(&mut self.client, bot, held, audible).await
    }

    /// Its bot is gone, and another one comes. Audio that nobody heard is old by then, and is not
    /// kept; everything else is.
    pub(super) fn lose_bot(&mut self) {
        self.between = true;
    }

    /// The client, to say good-bye to.
    pub(super) fn into_client(self) -> Client {
        self.client
    }
}

/// Both directions at once, each in its own order.
async fn pump(client: &mut Client, bot: BotSocket, held: Held, audible: impl FnOnce()) -> End {
    let (mut to_client, mut from_client_half) = client.split();
    let (mut to_bot, mut from_bot) = bot.split();
    let inward = async {
        for message in held.into_messages() {
            within(to_bot.send(message)).await?;
        }
        loop {
            let message = match timeout(SILENCE, from_client_half.next()).await {
                Ok(message) => from_client(message),
                Err(_) => Err(End::client_left("the client's connection went silent")),
            };
            match message {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(message) => within(to_bot.send(message)).await?,
                Err(end) => {
                    // A bot that hangs must not keep the news of who left.
                    let _ = timeout(LAST_WORD, to_bot.close()).await;
                    return Err::<Infallible, End>(end);
                }
            }
        }
    };
    let outward = async {
        let mut audible = Some(audible);
        let mut pings = interval_at(Instant::now() + PING, PING);
        loop {
            let message = tokio::select! {
                message = from_bot.next() => match from_the_bot(message)? {
                    Some(message) => message,
                    None => continue,
                },
                _ = pings.tick() => Message::Ping(bytes::Bytes::new()),
            };
            if carries_audio(&message)
                && let Some(tell) = audible.take()
            {
                tell();
            }
            if let Err(error) = to_client.send(message).await {
                return Err::<Infallible, End>(End::client_left(error.to_string()));
            }
        }
    };
    tokio::select! {
        Err(end) = inward => end,
        Err(end) = outward => end,
    }
}

async fn within(sending: impl Future<Output = Result<(), Error>>) -> Result<(), End> {
    match timeout(STUCK, sending).await {
        Ok(sent) => {
            sent.map_err(|error| End::bot_broke(format!("the bot's websocket broke: {error}")))
        }
        Err(_) => Err(End::bot_broke("the bot takes nothing from its websocket")),
    }
}

/// The next message of the client, or how it left.
fn from_client(message: Option<Result<Message, Error>>) -> Result<Message, End> {
    match message {
        Some(Ok(Message::Close(frame))) => Err(End::client_left(match frame {
            Some(frame) => {
                format!("the client closed its websocket ({})", u16::from(frame.code))
            }
            None => "the client closed its websocket".into(),
        })),
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(End::client_left(format!("the client's websocket broke: {error}"))),
        None => Err(End::client_left("the client's connection ended")),
    }
}

/// The next message for the client, if this is one, or how the bot ended the call.
fn from_the_bot(message: Option<Result<Message, Error>>) -> Result<Option<Message>, End> {
    match message {
        Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => Ok(Some(message)),
        Some(Ok(Message::Close(frame))) => {
            let (code, reason) = match frame {
                Some(frame) => (frame.code.into(), frame.reason.as_str().to_owned()),
                None => (1005, String::new()),
            };
            Err(End::BotClosed { code, reason })
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Err(error)) => Err(End::bot_broke(format!("the bot's websocket broke: {error}"))),
        None => Err(End::bot_broke("the bot's websocket ended")),
    }
}
