//! A scriptable agent with a scriptable bot, without any machine.
//!
//! This is the stand-in for tests of everything above this crate; it is compiled always, so
//! that other crates' tests and demonstrations can use it. It speaks the real protocol over
//! any [`Carrier`]: what a test sees through a [`Link`](crate::Link) is what it would see from a machine.
//!
//! ```
//! # use callbox_protocol::agent::Phase;
//! # use callbox_link::{Link, fake::{FakeAgent, Script}, fresh_wake};
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let agent = FakeAgent::new(Script {
//!     phase: Phase::Prepared,
//!     ..Script::default()
//! });
//! let link = Link::open(agent.carrier()).await.unwrap();
//! link.wake(&fresh_wake("demo")).await.unwrap();
//! agent.log("hello from the bot");
//! agent.exit_bot(0);
//! # });
//! ```
//!
//! One `FakeAgent` is one machine: its state lives on over several connections, as a real
//! machine's does over a restart of the dispatcher. The tunnel to its bot's port (8080 unless
//! [`Script::port`] says otherwise) leads to a fake bot that speaks HTTP/1.1: `GET /readyz` and `/livez`, `POST /bot`
//! and the wake hook answer 200; `/echo…` answers with the request as JSON; `/ws` is a
//! websocket that greets, then echoes, and closes when it is told `bye`.

mod api;
mod bot;
mod hello;
mod script;
mod state;

use std::sync::Arc;
use std::time::Duration;

use callbox_protocol::agent::{AgentEventKind, LogStream};

pub use script::{BotReady, Script};
pub use state::Seen;
use state::State;

use crate::Carrier;

/// A machine's agent, as far as a [`Link`](crate::Link) can tell. Cheap to clone; all clones
/// are the same machine.
#[derive(Clone)]
pub struct FakeAgent {
    state: Arc<State>,
}

impl FakeAgent {
    /// A machine that behaves as `script` says.
    pub fn new(script: Script) -> Self {
        Self { state: Arc::new(State::new(script)) }
    }

    /// Connects to this machine: the host's end of a new in-memory carrier.
    /// Must be called inside a tokio runtime.
    pub fn carrier(&self) -> Carrier {
        let (host, machine) = tokio::io::duplex(64 * 1024);
        let agent = self.clone();
        tokio::spawn(async move { agent.serve(Box::new(machine)).await });
        Box::new(host)
    }

    /// Serves one carrier until it ends, is [cut](Self::cut) or the machine is stopped:
    /// hello, connection, and after that the next hello.
    pub async fn serve(&self, carrier: Carrier) {
        let cut = self.state.cut_token();
        tokio::select! {
            () = cut.cancelled() => {}
            () = self.state.stopped.cancelled() => {
                // Lets the answer to the stop out.
                tokio::task::yield_now().await;
            }
            () = api::serve(Arc::clone(&self.state), carrier) => {}
        }
    }

    /// Has the bot say that it is ready (for [`BotReady::OnNotify`]).
    pub fn ready(&self) {
        self.state.event(AgentEventKind::Ready);
    }

    /// Ends the bot's process with `code`; its websockets close.
    pub fn exit_bot(&self, code: i32) {
        self.state.bot_exit(Some(code), None, false);
    }

    /// Ends the bot's process with a signal.
    pub fn kill_bot(&self, signal: i32) {
        self.state.bot_exit(None, Some(signal), false);
    }

    /// Breaks the bot's websockets, and leaves its process as it is.
    pub fn break_websockets(&self) {
        self.state.break_websockets();
    }

    /// Ends the bot's process as the kernel does when memory is used up.
    pub fn kill_bot_out_of_memory(&self) {
        self.state.bot_exit(None, Some(9), true);
    }

    /// Reports an event, whatever the state.
    pub fn event(&self, kind: AgentEventKind) {
        self.state.event(kind);
    }

    /// Has the bot write a line to its standard output.
    pub fn log(&self, text: &str) {
        self.state.log(LogStream::Stdout, text);
    }

    /// Has `stream` say a line.
    pub fn log_as(&self, stream: LogStream, text: &str) {
        self.state.log(stream, text);
    }

    /// Puts raw bytes on the stream of log lines: what a broken or hostile agent would send.
    pub fn raw_log(&self, bytes: &[u8]) {
        self.state.raw_log(bytes);
    }

    /// Cuts all connections, as when the machine or its carrier dies. The machine's state
    /// stays, and new carriers work.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// What was asked of this machine so far.
    pub fn seen(&self) -> Seen {
        self.state.seen()
    }

    /// Waits until `what` holds for what was seen.
    ///
    /// # Panics
    /// If it does not within ten seconds: this is for tests.
    pub async fn wait_for(&self, what: impl Fn(&Seen) -> bool) -> Seen {
        tokio::time::timeout(Duration::from_secs(10), self.state.wait_for(what))
            .await
            .expect("what the test waits for happens within ten seconds")
    }
}
