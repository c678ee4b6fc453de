//! What the host says to the agent (PID 1 in the machine), and what the agent answers.
//!
//! The carrier is any ordered byte stream: a virtio-serial port on local machines, an outbound
//! connection elsewhere. On it, the agent speaks HTTP/2 as the *server*, whoever dialled.
//!
//! # Opening a connection
//!
//! A serial port has no connections of its own, and a clone wakes up in the middle of whatever
//! its template last sent. So every connection starts with a hello that both sides can find in
//! a stream of rubbish:
//!
//! ```text
//! host  -> agent   "CALLBOX/1 " + 32 lower-case hex digits chosen freshly + "\n"
//! agent -> host    "CALLBOX/1 OK " + the same 32 digits + "\n"
//! ```
//!
//! Both discard everything before it. Until the answer arrives the host repeats a *new* hello
//! (every [`HELLO_RETRY_MS`]), and accepts only the answer to its latest one. HTTP/2 starts
//! right after the newline. A protocol error ends the connection; the agent then looks for
//! the next hello.
//!
//! # Calls
//!
//! | call | body | answer | when |
//! |---|---|---|---|
//! | `GET /v1/health` | | [`Health`] | any time |
//! | `POST /v1/prepare` | [`Prepare`] | [`Prepared`] | once, before a template is frozen or a cold machine is used |
//! | `POST /v1/freeze` | | [`Frozen`] | the last call before the host stops the machine to make a template |
//! | `POST /v1/wake` | [`Wake`] | [`Awake`] | first call on every clone and on every cold machine; again at will until there is a session |
//! | `POST /v1/clock` | [`Clock`] | [`Clock`] | between wake and session, where the wake came late |
//! | `POST /v1/hosts` | [`Hosts`] | `{}` | before the session, any number of times: the last one counts |
//! | `POST /v1/rejoin` | [`Rejoin`](crate::join::Rejoin) | `{}` | from machines that dialled, before the wake; any number of times: the last one counts |
//! | `POST /v1/session` | [`SessionData`] | [`SessionAccepted`] | once, after a successful wake |
//! | `GET /v1/events?after=N` | | lines of [`AgentEvent`] (`application/x-ndjson`) | any time; stays open |
//! | `GET /v1/logs?after=N` | | lines of [`LogLine`] (`application/x-ndjson`) | any time; stays open |
//! | `CONNECT 127.0.0.1:PORT` | | a byte tunnel to that port inside the machine | after a successful wake |
//! | `CONNECT inside:PORT` | | the next connection that somebody in the machine makes to `127.0.0.1:PORT`, as a byte tunnel; the answer comes with it | after a successful wake |
//! | `POST /v1/warn` | [`Warning`] | `{}` | in a session, any number of times: its end is near |
//! | `POST /v1/stop` | [`Stop`] | `{}` | ends the bot, then the machine |
//!
//! Everything else is 404; a call at the wrong time is 409; both with an [`AgentError`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Start of the line with which the host opens a connection.
pub const HELLO: &str = "CALLBOX/1 ";
/// Start of the line with which the agent accepts it.
pub const HELLO_OK: &str = "CALLBOX/1 OK ";
/// How long the host waits for an answer to a hello before it sends a new one, in milliseconds.
pub const HELLO_RETRY_MS: u64 = 250;
/// Name of the virtio-serial port that carries the agent protocol on local machines
/// (found in the guest under `/sys/class/virtio-ports/*/name`).
pub const AGENT_PORT_NAME: &str = "callbox.agent";
/// Name of the second port, for whoever carries the call's media and is not the dispatcher: the
/// same hello and HTTP/2, but nothing except `CONNECT` to the bot's own port. Who is connected
/// here does not keep the machine alive.
pub const MEDIA_PORT_NAME: &str = "callbox.media";
/// Path of the wake hook that `callbox-bot` serves on the bot's own port.
pub const BOT_WAKE_PATH: &str = "/_callbox/wake";
/// Path on the bot's own port at which an `http` bot hears a [`Warning`].
pub const BOT_WARNING_PATH: &str = "/_callbox/warning";

/// Answer to `GET /v1/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Version of the agent's package.
    pub version: String,
    /// How far the machine has come.
    pub phase: Phase,
    /// Milliseconds since the kernel started (keeps its template's count in a clone).
    pub uptime_ms: u64,
}

/// How far a machine has come. Only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The agent runs; nothing else does.
    Booted,
    /// What the bot's contract prepares before a session (for `http`: the bot's server) is up.
    Prepared,
    /// The machine is about to become a template.
    Frozen,
    /// Reseeded, clock set: this is no longer the template.
    Awake,
    /// The session's data was delivered.
    InSession,
    /// The bot has ended.
    Over,
}

/// Everything about the bot that does not depend on a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// How the bot is spoken to.
    pub contract: Contract,
    /// Program and arguments. For [`Contract::Command`] a template whose placeholders
    /// (`{room_url}`, `{token}`, `{session_id}`, `{bot}`, `{body}`) are filled from [`SessionData`].
    /// Empty: what the agent was started with, where it is a program of the image's.
    pub argv: Vec<String>,
    /// Environment of the bot, beside `PATH`, `HOME` and `LANG`. Never secrets: it is in the template.
    pub env: BTreeMap<String, String>,
    /// Working directory of the bot. Empty: the agent's own, where the image chose it.
    pub cwd: String,
    /// Numeric user id that the bot runs as.
    pub uid: u32,
    /// Numeric group id that the bot runs as.
    pub gid: u32,
    /// Port inside the machine on which the bot serves HTTP and websockets.
    pub port: u16,
    /// How long the bot may take to become ready, in milliseconds.
    pub ready_timeout_ms: u64,
}

/// How a bot is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Contract {
    /// The contract of Pipecat's base image: a server that is started before the session
    /// and answers `GET /readyz`, `POST /bot` and the websocket `/ws` on the bot's port.
    Http {
        /// How the bot's process proves that it reseeded its own generators after a wake.
        reseed: Reseed,
    },
    /// The process is the session: it is started with the session's data and its exit ends it.
    Command {
        /// What counts as the bot's own word that it can take the call.
        ready: CommandReady,
        /// What tells the bot's process that there is a [`Warning`] to read. Nothing by default:
        /// a signal ends programs that do not expect it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        warning_signal: Option<WarningSignal>,
    },
}

/// The signals that may say "there is a warning to read".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WarningSignal {
    /// `SIGUSR1`
    #[serde(rename = "SIGUSR1")]
    Usr1,
    /// `SIGUSR2`
    #[serde(rename = "SIGUSR2")]
    Usr2,
    /// `SIGHUP`
    #[serde(rename = "SIGHUP")]
    Hup,
    /// `SIGINT`
    #[serde(rename = "SIGINT")]
    Int,
}

/// What must acknowledge a wake inside the bot's own process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reseed {
    /// `POST` [`BOT_WAKE_PATH`] with a [`BotWake`] must be answered with 200 and a [`BotAwake`]
    /// of the same generation (what `callbox-bot` does).
    Hook,
    /// A program that is run in the machine as the bot's user, and reaches the bot's process in
    /// a way that only the two know. It has the generation id in `CALLBOX_GENERATION_ID` and
    /// the derived entropy (hex, one line) on its standard input; exit code 0 acknowledges.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Only the kernel is reseeded. For bots that keep no random state of their own.
    Kernel,
}

/// What the agent sends to the bot's own process at [`BOT_WAKE_PATH`].
#[derive(Clone, Serialize, Deserialize)]
pub struct BotWake {
    /// The id of the wake, see [`Wake`].
    pub generation_id: String,
    /// 32 bytes as hex, derived from the wake's entropy for this process alone. A secret.
    pub entropy: String,
}

impl std::fmt::Debug for BotWake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BotWake")
            .field("generation_id", &self.generation_id)
            .finish_non_exhaustive()
    }
}

/// The proof of a [`BotWake`]. A status alone proves nothing: a server that answers 200 to
/// every path would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotAwake {
    /// The id of the wake that the process acted on.
    pub generation_id: String,
    /// Names of what it reseeded, for people: `openssl`, `random`, `numpy`, …
    #[serde(default)]
    pub reseeded: Vec<String>,
}

/// When a `command` bot counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandReady {
    /// As soon as its process runs (it joins a room by itself).
    Started,
    /// When it accepts connections on the bot's port.
    Listening,
}

/// Answer to `POST /v1/prepare`: for `http` bots, `/readyz` answered 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// How long it took, in milliseconds of the machine's clock.
    pub took_ms: u64,
}

/// Answer to `POST /v1/freeze`. After it the agent closes the connection by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Listening TCP sockets of the machine (`127.0.0.1:8080`), for the template's manifest.
    pub listening: Vec<String>,
}

/// What makes a clone itself. First call after every wake; without a positive [`Awake`]
/// no session data is sent.
#[derive(Clone, Serialize, Deserialize)]
pub struct Wake {
    /// 128 random bits as 32 hex digits, new for every machine. Echoed in [`Awake`].
    pub generation_id: String,
    /// 64 random bytes from the host's kernel, as hex. Goes into the guest kernel's pool and is
    /// stretched for the bot's own generators. A secret.
    pub entropy: String,
    /// Host's wall clock at the moment of sending, nanoseconds since the epoch, as a decimal
    /// string (JSON numbers lose digits). The agent adds what it took to get to setting it.
    pub unix_ns: String,
    /// Host name for the machine.
    pub hostname: String,
}

impl std::fmt::Debug for Wake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wake")
            .field("generation_id", &self.generation_id)
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

/// The acknowledgement of a [`Wake`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awake {
    /// The id of the wake that this answers.
    pub generation_id: String,
    /// Entropy was credited (RNDADDENTROPY) and the generator rekeyed (RNDRESEEDCRNG).
    pub kernel_reseeded: bool,
    /// The wall clock was set.
    pub clock_set: bool,
    /// The bot's process acknowledged its own reseeding. `None` where no bot process runs yet
    /// or its contract asks for the kernel alone.
    pub bot_reseeded: Option<bool>,
    /// Host name, machine id and boot id are new. `None` from agents that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names_renewed: Option<bool>,
    /// The machine's wall clock when it answered, nanoseconds since the epoch as a decimal
    /// string. It lies between the wake's sending and the answer's coming, or it is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix_ns: Option<String>,
    /// What the bot's process reseeded, in its own words ([`BotAwake`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reseeded: Vec<String>,
    /// How long each part took, in microseconds of the machine's clock: `kernel`, `clock`,
    /// `names`, `bot`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub took_us: BTreeMap<String, u64>,
}

/// Body of `POST /v1/clock`, the host's wall clock at the moment of sending, and of its answer,
/// the machine's at the moment of answering.
///
/// A machine that has just been cloned may take a tenth of a second to read its first request,
/// and the time in it is old by then. This is for setting the clock again, once it is quick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Nanoseconds since the epoch, as a decimal string (JSON numbers lose digits).
    pub unix_ns: String,
}

/// What the machine needs to serve its one session. Secrets travel only here.
#[derive(Clone, Serialize, Deserialize)]
pub struct SessionData {
    /// The session.
    pub session_id: String,
    /// Which machine of that session this is, from 1.
    pub incarnation: u32,
    /// Name of the bot in the dispatcher's configuration.
    pub bot: String,
    /// `websocket`, `daily`, `livekit`, `webrtc`.
    pub transport: String,
    /// Where the bot meets the client. For `websocket`: the address at which the bot must
    /// listen inside the machine (`ws://127.0.0.1:8080/ws`).
    pub room_url: String,
    /// The bot's own key to the room; empty where the transport needs none.
    pub token: String,
    /// The `body` of the start request, any JSON.
    pub body: Value,
    /// Secrets of the bot's configuration, added to the environment of `command` bots and
    /// written to `/run/callbox/env.json` (mode 0400, the bot's user) for all.
    pub env: BTreeMap<String, String>,
    /// The machine ends itself after so many milliseconds, whatever its dispatcher does: longer
    /// than any session may last, for the day on which everything else failed. None: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_life_ms: Option<u64>,
}

impl std::fmt::Debug for SessionData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionData")
            .field("session_id", &self.session_id)
            .field("incarnation", &self.incarnation)
            .field("bot", &self.bot)
            .field("transport", &self.transport)
            .field("room_url", &self.room_url)
            .finish_non_exhaustive()
    }
}

/// Answer to `POST /v1/session`. Readiness comes as an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionAccepted {
    /// The session that was accepted.
    pub session_id: String,
}

/// Body of `POST /v1/hosts`, for machines with a network: how they find the addresses of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// The addresses of each name, for a machine that can ask nobody for them.
    #[serde(default)]
    pub hosts: BTreeMap<String, Vec<std::net::Ipv4Addr>>,
    /// Whom it asks for all others; empty leaves it as it is.
    #[serde(default)]
    pub resolvers: Vec<std::net::Ipv4Addr>,
}

/// Body of `POST /v1/warn`: the session will be ended by the host, whatever the bot does.
///
/// A courtesy: the call succeeds when the agent did its part, and what the bot made of it is in
/// the log. An `http` bot gets this object at [`BOT_WARNING_PATH`]; a `command` bot finds it in
/// `/run/callbox/warning.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// How long the session still has, in milliseconds.
    pub ends_in_ms: u64,
    /// Why it ends: a stable kebab-case word, the end code that the session will have
    /// (`max-duration`).
    pub reason: String,
}

/// Body of `POST /v1/stop`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Between SIGTERM to the bot and the end of the machine, in milliseconds.
    pub grace_ms: u64,
}

/// Something that happened in the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentEvent {
    /// Counts from 1 without gaps; a reader that reconnects asks for `after=` the last one it saw.
    pub seq: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: AgentEventKind,
}

/// The kinds of [`AgentEvent`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum AgentEventKind {
    /// The bot can take the call. At most once, after the session's data was accepted.
    Ready,
    /// The bot did not become ready within `ready_timeout_ms`, or could not be started at all.
    NotReady {
        /// What was waited for or attempted, and what came of it.
        detail: String,
    },
    /// The bot's main process ended. The last event of a machine.
    BotExited {
        /// Exit code, if it exited.
        code: Option<i32>,
        /// Signal number, if a signal ended it.
        signal: Option<i32>,
        /// The kernel ended it because the machine's memory was used up.
        out_of_memory: bool,
    },
    /// A kind that this reader does not know (an agent newer than the dispatcher).
    #[serde(other)]
    Unknown,
}

/// One line that the bot or the agent wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Counts from 1. Gaps mean that lines were dropped: the agent keeps a bounded number.
    pub seq: u64,
    /// Guest's wall clock, milliseconds since the epoch.
    pub at_ms: u64,
    /// Who wrote it.
    pub stream: LogStream,
    /// The line without its newline; bytes that are not UTF-8 replaced, at most 8192 bytes.
    pub text: String,
}

/// Who wrote a [`LogLine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogStream {
    /// The bot's standard output.
    Stdout,
    /// The bot's standard error.
    Stderr,
    /// The agent.
    Agent,
}

/// Body of every answer of the agent that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentError {
    /// Stable, kebab-case: `bot-exited`, `bot-not-found`, `not-ready`, `established-connections`,
    /// `wrong-phase`, `not-reseeded`, `bad-request`, `not-found`, `internal`.
    pub code: String,
    /// For people: what was attempted and what came of it.
    pub message: String,
    /// The last lines that the bot wrote, where they help.
    #[serde(default)]
    pub log_tail: Vec<String>,
}
