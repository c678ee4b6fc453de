//! A call that this process carries itself, where the provider has no way into its machines that
//! another process could take. It ends with this process.

use std::{convert::Infallible, future::pending};

use callbox_core::{EventKind, Session};
use tokio::time::timeout;

use super::{
    LAST_WORD, OPEN,
    bot_socket::{self, BotSocket},
    call::Call,
    client::{Close, Line, say_goodbye},
    end::End,
};
use crate::plane::{Handle, over};

/// Carries the media of one session until somebody ends it.
pub(super) async fn carry(handle: &Handle, port: u16, max_held: usize, line: Line) {
    handle.tell(EventKind::ClientJoined);
    let mut call = Call::new(line.websocket().await, max_held);
    let end = tokio::select! {
        Err(end) = with_bots(handle, port, &mut call) => Some(end),
        _ = handle.until(over) => None,
    };
    if let Some(end) = &end {
        end.tell(handle, None, LAST_WORD).await;
    }
    let close = match end {
        Some(End::ClientLeft { .. }) => None,
        _ => {
            // The driver was only just told; the client shall hear what it made of that.
            let _ = timeout(LAST_WORD, handle.until(over)).await;
            Some(Close::of(handle))
        }
    };
    say_goodbye(call.into_client(), close).await;
}

/// Until somebody ends the call for good. Whether a bot that failed is replaced is its driver's
/// decision: here the client waits for the next one, or for the end.
async fn with_bots(handle: &Handle, port: u16, call: &mut Call) -> Result<Infallible, End> {
    let mut before = 0;
    loop {
        let session = call.hold(next_bot(handle, before)).await?;
        let opened = call.hold(in_time(open_bot(handle, port, &session))).await?;
        let end = match opened {
            Ok(bot) => call.carry(bot, || handle.tell(EventKind::Audible)).await,
            Err(end) => end,
        };
        if !end.is_a_bots_failure() {
            return Err(end);
        }
        call.lose_bot();
        before = session.incarnation;
        call.hold(end.tell(handle, Some(before), LAST_WORD)).await?;
    }
}

/// The session, as soon as a bot of it is ready that comes after machine `before`.
pub(super) async fn next_bot(handle: &Handle, before: u32) -> Session {
    match handle.until(|s| over(s) || (s.ready && s.incarnation > before)).await {
        Some(session) if !over(&session) => session,
        // Whoever waits for this also waits for the session's end.
        _ => pending().await,
    }
}

async fn open_bot(handle: &Handle, port: u16, session: &Session) -> Result<BotSocket, String> {
    let link = handle.agent().await.ok_or("the machine is gone")?;
    bot_socket::open(&link, port, session.id, session.incarnation, &session.body).await
}

/// A bot that said it is ready accepts its websocket soon.
pub(super) async fn in_time(
    opening: impl Future<Output = Result<BotSocket, String>>,
) -> Result<BotSocket, End> {
    match timeout(OPEN, opening).await {
        Ok(opened) => opened.map_err(End::bot_broke),
        Err(_) => {
            let limit = OPEN.as_secs();
            Err(End::bot_broke(format!("the bot did not accept its websocket within {limit} s")))
        }
    }
}
