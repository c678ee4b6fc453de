//! Waiting for the bot's own word that it is ready.

use std::net::Ipv4Addr;
use std::time::Duration;

use http::Method;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::bot::Bot;
use crate::loopback;
use crate::reap::Exit;

/// Between two looks at first. Looks get rarer, because each takes time from the bot itself.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What counts as ready.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sign {
    /// `GET /readyz` on this port answers 200.
    Readyz(u16),
    /// This port accepts connections.
    Listening(u16),
}

/// What came of waiting.
#[derive(Debug)]
pub(crate) enum Outcome {
    Ready,
    Exited(Exit),
    /// The time is up. Says what was seen last.
    Late(String),
}

/// Waits until the bot shows `sign`, ends, or `time` is up.
pub(crate) async fn wait(sign: Sign, bot: &Bot, time: Duration) -> Outcome {
    let deadline = Instant::now() + time;
    let mut seen = "the bot was not asked yet".to_owned();
    tokio::select! {
        biased;
        exit = bot.exit() => Outcome::Exited(exit),
        looked = timeout_at(deadline, keep_looking(sign, &mut seen)) => match looked {
            Ok(()) => Outcome::Ready,
            Err(_) => Outcome::Late(format!("not ready after {} ms: {seen}", time.as_millis())),
        },
    }
}

async fn keep_looking(sign: Sign, seen: &mut String) {
    let mut pause = FIRST_PAUSE;
    while let Err(not_yet) = look(sign).await {
        *seen = not_yet;
        sleep(pause).await;
        pause = (pause * 5 / 4).min(LAST_PAUSE);
    }
}

/// Looks once. The error says what was seen instead.
pub(crate) async fn look(sign: Sign) -> Result<(), String> {
    let looking = async {
        match sign {
            Sign::Readyz(port) => {
                match loopback::ask(port, Method::GET, "/readyz", &[], vec![]).await {
                    Ok((200, _)) => Ok(()),
                    Ok((status, _)) => Err(format!("GET /readyz answers {status}")),
                    Err(error) => Err(format!("GET /readyz on port {port} fails: {error}")),
                }
            }
            Sign::Listening(port) => match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("port {port} accepts no connections: {error}")),
            },
        }
    };
    timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}
