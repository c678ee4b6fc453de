//! Carrying a client's media websocket to the bot and back, frame by frame and in order from the
//! first one.
//!
//! ```text
//!  client ══ws══▶ [ held, bounded ]──▶ once the bot is ready ══ws in a tunnel══▶ bot
//!         ◀══════════════════════════════════════════════════════════════════
//! ```
//!
//! The client is accepted at once, whatever the machine is doing: clients give no second chance.
//! What it sends meanwhile is held and then delivered first. Whoever closes first tells why:
//! client gone, bot finished, or the session ended by other means.

mod bot_socket;
mod frames;
mod held;

use std::sync::{Arc, atomic::Ordering};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use callbox_core::{EndCode, EndReason, EventKind, Outcome};
use futures::{SinkExt as _, StreamExt as _};
use tokio::time::{Duration, Instant, interval_at, timeout};

use crate::{
    config::Bot,
    plane::{Handle, Plane, over},
};
use bot_socket::{BotSocket, ToBot};
use held::{Full, Held};

/// How long a bot that said it is ready may take to accept its websocket.
const OPEN: Duration = Duration::from_secs(20);
/// How long the machine's own account of an end is waited for, before a broken connection is it.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How long a bot may refuse to take a message.
const STUCK: Duration = Duration::from_secs(30);
/// How often a client is asked whether it is there, and after how long without any sign of it
/// (an answer is one) it counts as gone: lost networks and sleeping laptops say no good-bye.
const PING: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(65);

/// Takes the client's place in a session, so that there is one client only.
pub struct Place(Handle);

impl Place {
    /// None when it is taken.
    pub fn take(handle: &Handle) -> Option<Place> {
        (!handle.media.swap(true, Ordering::AcqRel)).then(|| Place(handle.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.media.store(false, Ordering::Release);
    }
}

/// How carrying came to its end.
enum End {
    /// The client closed, or its connection broke.
    ClientLeft(String),
    /// The client sent more than is held.
    Overflow(Full),
    /// The bot closed its websocket.
    BotClosed { code: u16, reason: String },
    /// The bot's websocket could not be opened, or broke.
    BotBroke(String),
    /// The session ends for a reason of its own.
    SessionEnds,
}

/// Carries the media of one session until somebody ends it.
pub async fn carry(plane: Arc<Plane>, bot: Arc<Bot>, place: Place, mut client: WebSocket) {
    let handle = place.0.clone();
    handle.tell(EventKind::ClientJoined);
    let end = match open(&plane, &bot, &handle, &mut client).await {
        Ok((socket, held)) => pump(&handle, &mut client, socket, held).await,
        Err(end) => end,
    };
    tell(&handle, &end).await;
    say_goodbye(client, &handle, &end).await;
}

/// Holds what the client sends until the bot's websocket is open.
async fn open(
    plane: &Plane,
    bot: &Bot,
    handle: &Handle,
    client: &mut WebSocket,
) -> Result<(BotSocket, Held), End> {
    let mut held = Held::new(plane.config.max_held_bytes);
    let opening = open_bot(bot, handle);
    let ending = handle.until(over);
    tokio::pin!(opening, ending);
    loop {
        tokio::select! {
            socket = &mut opening => return socket.map(|socket| (socket, held)),
            _ = &mut ending => return Err(End::SessionEnds),
            message = client.recv() => {
                let message = from_client(message)?;
                held.push(message).map_err(End::Overflow)?;
            }
        }
    }
}

async fn open_bot(bot: &Bot, handle: &Handle) -> Result<BotSocket, End> {
    let ready = handle.until(|s| s.moments.ready.is_some() || over(s)).await;
    let Some(session) = ready.filter(|session| !over(session)) else {
        return Err(End::SessionEnds);
    };
    let opening = async {
        let link = handle.agent().await.ok_or("the machine is gone")?;
        BotSocket::open(&link, bot.machine.run.port, session.id, &session.body).await
    };
    match timeout(OPEN, opening).await {
        Ok(opened) => opened.map_err(End::BotBroke),
        Err(_) => Err(End::BotBroke(format!(
            "the bot did not accept its websocket within {} s",
            OPEN.as_secs()
        ))),
    }
}

/// Both directions at once, each in its own order.
async fn pump(handle: &Handle, client: &mut WebSocket, bot: BotSocket, held: Held) -> End {
    let (mut to_client, mut from_client_half) = client.split();
    let (mut to_bot, mut from_bot) = bot.split();
    let inward = async {
        for message in held.into_messages() {
            send_to_bot(&mut to_bot, message).await?;
        }
        loop {
            let message = match timeout(SILENCE, from_client_half.next()).await {
                Ok(message) => from_client(message),
                Err(_) => Err(End::ClientLeft("the client's connection went silent".into())),
            };
            match message {
                Ok(message) => send_to_bot(&mut to_bot, message).await?,
                Err(end) => {
                    // A bot that hangs must not keep the news of who left.
                    let _ = timeout(LAST_WORD, to_bot.close()).await;
                    return Err::<std::convert::Infallible, End>(end);
                }
            }
        }
    };
    let outward = async {
        let mut audible = false;
        let mut pings = interval_at(Instant::now() + PING, PING);
        loop {
            let message = tokio::select! {
                message = from_bot.next() => message?,
                _ = pings.tick() => Message::Ping(axum::body::Bytes::new()),
            };
            if !audible && frames::carries_audio(&message) {
                audible = true;
                handle.tell(EventKind::Audible);
            }
            if let Err(error) = to_client.send(message).await {
                return Err::<std::convert::Infallible, End>(End::ClientLeft(error.to_string()));
            }
        }
    };
    tokio::select! {
        Err(end) = inward => end,
        Err(end) = outward => end,
        _ = handle.until(over) => End::SessionEnds,
    }
}

async fn send_to_bot(to_bot: &mut ToBot, message: Message) -> Result<(), End> {
    match timeout(STUCK, to_bot.send(message)).await {
        Ok(sent) => sent.map_err(End::BotBroke),
        Err(_) => Err(End::BotBroke("the bot takes nothing from its websocket".into())),
    }
}

/// The next message of the client, or how it left.
fn from_client(message: Option<Result<Message, axum::Error>>) -> Result<Message, End> {
    match message {
        Some(Ok(Message::Close(frame))) => Err(End::ClientLeft(match frame {
            Some(frame) => format!("the client closed its websocket ({})", frame.code),
            None => "the client closed its websocket".into(),
        })),
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(End::ClientLeft(format!("the client's websocket broke: {error}"))),
        None => Err(End::ClientLeft("the client's connection ended".into())),
    }
}

/// Tells the driver, in its words.
async fn tell(handle: &Handle, end: &End) {
    match end {
        End::ClientLeft(detail) => handle.tell(EventKind::ClientLeft { detail: detail.clone() }),
        End::Overflow(full) => handle.tell(EventKind::ClientOverflow { detail: full.to_string() }),
        End::BotClosed { code: 1000 | 1001 | 1005, .. } => {
            let why = EndReason::new(EndCode::BotFinished, "the bot closed its websocket");
            handle.tell(EventKind::EndRequested(why));
        }
        End::BotClosed { code, reason } => {
            let detail = format!("the bot closed its websocket with code {code} {reason:?}");
            bot_failed(handle, detail).await;
        }
        End::BotBroke(detail) => bot_failed(handle, detail.clone()).await,
        End::SessionEnds => {}
    }
}

/// A bot that dies breaks its websocket first; its exit code says more, and comes soon after.
async fn bot_failed(handle: &Handle, detail: String) {
    if timeout(LAST_WORD, handle.until(over)).await.is_err() {
        handle.tell(EventKind::EndRequested(EndReason::new(EndCode::BotFailed, detail)));
    }
}

async fn say_goodbye(mut client: WebSocket, handle: &Handle, end: &End) {
    let (code, reason) = match end {
        End::ClientLeft(_) => return,
        End::Overflow(_) => (1009, EndCode::ClientOverflow.as_str().to_owned()),
        End::BotClosed { .. } | End::BotBroke(_) | End::SessionEnds => {
            // The driver was only just told; the client shall hear what it made of that.
            let _ = timeout(LAST_WORD, handle.until(over)).await;
            let state = handle.session.borrow().state.clone();
            match state.why() {
                Some(why) if why.code.outcome() == Outcome::Completed => {
                    (1000, why.code.as_str().to_owned())
                }
                Some(why) => (1011, why.code.as_str().to_owned()),
                None => (1000, String::new()),
            }
        }
    };
    let frame = CloseFrame { code, reason: reason.into() };
    let _ = timeout(LAST_WORD, client.send(Message::Close(Some(frame)))).await;
}
