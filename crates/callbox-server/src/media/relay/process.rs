//! The relay itself: what `callbox relay` does.

use std::{
    convert::Infallible,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    os::unix::net::{UnixListener as StdListener, UnixStream as StdStream},
    path::PathBuf,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use callbox_core::{EndCode, SessionId};
use callbox_link::Link;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::{
    net::{TcpStream, UnixListener, UnixStream},
    time::Duration,
};

use super::super::{
    LAST_WORD,
    bot_socket::{self, BotSocket},
    call::Call,
    client::{Close, Line, say_goodbye},
    end::End,
    here::in_time,
};
use super::{
    descriptors,
    desk::{Bot, Desk},
    keep::record_beside,
    words::{Broke, Order},
};

/// How long a dispatcher that is there may take to say what an end means: the machine's own
/// account of it is worth waiting for.
const VERDICT: Duration = Duration::from_secs(5);

/// Why there is nothing to relay.
#[derive(Debug, thiserror::Error)]
pub enum NotARelay {
    /// Somebody typed it, or the dispatcher died before it could hand the call over.
    #[error("there is no call on standard input: `callbox serve` starts this, for one call each")]
    NoOrder,
    /// The system refuses something.
    #[error("cannot take over a call")]
    Io(#[from] io::Error),
}

/// Takes over the call that comes on standard input, and returns when it is over. Brings its own
/// runtime, a small one: there is a process like this for every call.
///
/// # Errors
/// [`NotARelay`]. The client's connection is closed then, if there was one.
pub fn run() -> Result<(), NotARelay> {
    give_up_what_is_not_needed();
    let stdin = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (text, came) = descriptors::receive(&stdin).map_err(|_| NotARelay::NoOrder)?;
    let order = serde_json::from_slice(&text).map_err(|_| NotARelay::NoOrder)?;
    let [client, listener] = <[OwnedFd; 2]>::try_from(came).map_err(|_| NotARelay::NoOrder)?;
    let listener = StdListener::from(listener);
    let socket = listener.local_addr()?.as_pathname().map(PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let relayed = runtime.block_on(async {
        let client = std::net::TcpStream::from(client);
        client.set_nonblocking(true)?;
        listener.set_nonblocking(true)?;
        let (client, listener) = (TcpStream::from_std(client)?, UnixListener::from_std(listener)?);
        relay(order, client, listener).await;
        Ok(())
    });
    // Before the runtime and with it the connections go: who sees us gone finds nothing left.
    if let Some(socket) = socket {
        let _ = fs::remove_file(&socket);
        let _ = fs::remove_file(record_beside(&socket));
    }
    relayed
}

/// What is said in a call must not lie about in a core file, and nothing that a client or a bot
/// sends shall make more of us than we are. Best effort: where it fails, the call works as well.
fn give_up_what_is_not_needed() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    let _ = rustix::thread::set_no_new_privs(true);
}

/// One call, from hand-over to end.
pub(super) async fn relay(order: Order, client: TcpStream, listener: UnixListener) {
    let desk = Desk::open(listener);
    let alone = Duration::from_millis(order.alone_ms);
    let first = STANDARD.decode(&order.first).unwrap_or_default().into();
    let client = Line { stream: client, first }.websocket().await;
    let mut call = Call::new(client, order.max_held_bytes);
    let end = tokio::select! {
        Err(end) = with_bots(&desk, &order, &mut call) => end,
        close = desk.close() => return say_goodbye(call.into_client(), Some(close)).await,
        () = desk.alone(alone) => return say_goodbye(call.into_client(), Some(forsaken())).await,
    };
    desk.say_end(&end);
    let close = match end {
        End::ClientLeft { .. } => None,
        _ => desk.verdict(VERDICT).await.or_else(|| end.close()),
    };
    say_goodbye(call.into_client(), close).await;
    // Not gone before a dispatcher knows.
    tokio::select! {
        _ = desk.close() => {}
        () = desk.alone(alone) => {}
    }
}

/// Until somebody ends the call for good. After a bot that failed, the client waits for the next
/// one, if there may be one and the dispatcher knows what that is.
async fn with_bots(desk: &Desk, order: &Order, call: &mut Call) -> Result<Infallible, End> {
    let mut broke: Option<Broke> = None;
    loop {
        let before = broke.as_ref().map_or(0, |broke| broke.incarnation);
        let bot = call.hold(desk.bot(before)).await?;
        if let (None, Some(broke)) = (bot.incarnation, broke) {
            // An older dispatcher took over, which knows of no other machine than the first.
            return Err(broke.end);
        }
        let end = match call.hold(in_time(open_bot(&bot, order))).await? {
            Ok(socket) => call.carry(socket, || desk.say_audible()).await,
            Err(end) => end,
        };
        let incarnation = bot.incarnation.filter(|_| order.restarts && end.is_a_bots_failure());
        let Some(incarnation) = incarnation else { return Err(end) };
        call.lose_bot();
        let failed = Broke { incarnation, end };
        desk.say_broke(failed.clone());
        broke = Some(failed);
    }
}

async fn open_bot(bot: &Bot, order: &Order) -> Result<BotSocket, String> {
    let session = SessionId::parse(&order.session).ok_or("the order names no session")?;
    let carrier = UnixStream::connect(&bot.media)
        .await
        .map_err(|error| format!("cannot reach the machine's media port: {error}"))?;
    let link = Link::open(Box::new(carrier)).await;
    let link = link.map_err(|error| crate::driver::Chain(&error).to_string())?;
    let incarnation = bot.incarnation.unwrap_or(1);
    bot_socket::open(&link, order.port, session, incarnation, &order.body).await
}

/// No dispatcher came back: the next one will end the session with this code.
fn forsaken() -> Close {
    Close { code: 1011, reason: EndCode::DispatcherRestarted.as_str().to_owned() }
}

/// The longest good-bye, for whoever waits for a relay's end.
pub(super) const GOODBYE: Duration = Duration::from_secs(2 * LAST_WORD.as_secs() + 1);
