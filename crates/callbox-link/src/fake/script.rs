use std::time::Duration;

use callbox_protocol::agent::{AgentError, Phase};

/// How a [`FakeAgent`](super::FakeAgent) behaves. The default does everything right, at once.
#[derive(Clone, Debug)]
pub struct Script {
    /// How far the machine is when the test begins.
    pub phase: Phase,
    /// Bytes that are on the carrier before the first answer to a hello.
    pub rubbish: Vec<u8>,
    /// How long the agent takes before it reads anything.
    pub boot_delay: Duration,
    /// How long each of prepare, wake and session takes.
    pub call_delay: Duration,
    /// Refuse prepare in these words (422).
    pub refuse_prepare: Option<AgentError>,
    /// Refuse freeze in these words (409).
    pub refuse_freeze: Option<AgentError>,
    /// Answer to wake that the kernel was reseeded.
    pub kernel_reseeded: bool,
    /// Answer to wake that the clock was set.
    pub clock_set: bool,
    /// Answer to wake and clock with this time instead of the one that came.
    pub unix_ns: Option<String>,
    /// Answer to wake whether the machine has names of its own.
    pub names_renewed: Option<bool>,
    /// Answer to wake whether the bot reseeded.
    pub bot_reseeded: Option<bool>,
    /// Answer to wake with this generation id instead of the right one.
    pub generation_id: Option<String>,
    /// Refuse the session in these words (422).
    pub refuse_session: Option<AgentError>,
    /// When the bot says it is ready.
    pub ready: BotReady,
    /// End the bot with this exit code right after the session's data arrived.
    pub exit_on_session: Option<i32>,
    /// End the bot with this exit code when its websocket closes, as a real bot does.
    pub exit_on_close: Option<i32>,
    /// Port of the bot.
    pub port: u16,
    /// Binary frames that the bot sends first on every websocket.
    pub greeting: Vec<Vec<u8>>,
    /// Close the websocket after so many echoed frames.
    pub close_after: Option<usize>,
    /// Cut all connections in the middle of this call (`prepare`, `wake`, …), before it is
    /// answered.
    pub cut_in: Option<&'static str>,
    /// Answer this call with 200 and these bytes, whatever they are.
    pub raw_answer: Option<(&'static str, Vec<u8>)>,
}

/// When a fake bot says that it can take the call.
#[derive(Clone, Debug)]
pub enum BotReady {
    /// Right after the session's data.
    AtOnce,
    /// So long after the session's data.
    After(Duration),
    /// When the test calls [`FakeAgent::ready`](super::FakeAgent::ready) — or never.
    OnNotify,
    /// It reports that it failed to become ready, with this detail.
    Fails(String),
}

impl Default for Script {
    fn default() -> Self {
        Self {
            phase: Phase::Booted,
            rubbish: Vec::new(),
            boot_delay: Duration::ZERO,
            call_delay: Duration::ZERO,
            refuse_prepare: None,
            refuse_freeze: None,
            kernel_reseeded: true,
            clock_set: true,
            unix_ns: None,
            names_renewed: Some(true),
            bot_reseeded: Some(true),
            generation_id: None,
            refuse_session: None,
            ready: BotReady::AtOnce,
            exit_on_session: None,
            exit_on_close: Some(0),
            port: 8080,
            greeting: Vec::new(),
            close_after: None,
            cut_in: None,
            raw_answer: None,
        }
    }
}
