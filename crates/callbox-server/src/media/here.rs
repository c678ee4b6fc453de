//! A call that this process carries itself, where the provider has no way into its machines that
//! another process could take. It ends with this process.

use callbox_core::EventKind;
use tokio::time::timeout;

use super::{
    LAST_WORD, OPEN,
    bot_socket::{self, BotSocket},
    call,
    client::{Close, Line, say_goodbye},
    end::End,
};
use crate::plane::{Handle, over};

/// Carries the media of one session until somebody ends it.
pub(super) async fn carry(handle: &Handle, port: u16, max_held: usize, line: Line) {
    handle.tell(EventKind::ClientJoined);
    let mut client = line.websocket().await;
    let audible = || handle.tell(EventKind::Audible);
    let end = tokio::select! {
        end = call::carry(&mut client, max_held, open_bot(handle, port), audible) => Some(end),
        _ = handle.until(over) => None,
    };
    if let Some(end) = &end {
        end.tell(handle, LAST_WORD).await;
    }
    let close = match end {
        Some(End::ClientLeft { .. }) => None,
        _ => {
            // The driver was only just told; the client shall hear what it made of that.
            let _ = timeout(LAST_WORD, handle.until(over)).await;
            Some(Close::of(handle))
        }
    };
    say_goodbye(client, close).await;
}

async fn open_bot(handle: &Handle, port: u16) -> Result<BotSocket, End> {
    let ready = handle.until(|s| s.ready || over(s)).await;
    let Some(session) = ready.filter(|session| !over(session)) else {
        // Whoever waits for this also waits for the session's end.
        return std::future::pending().await;
    };
    let opening = async {
        let link = handle.agent().await.ok_or("the machine is gone")?;
        bot_socket::open(&link, port, session.id, &session.body).await
    };
    in_time(opening).await
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
