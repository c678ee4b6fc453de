//! Why sessions end.

/// Why a session ends: a stable code and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndReason {
    /// Stable; clients and dashboards match on it.
    pub code: EndCode,
    /// What exactly happened. Holds no secrets.
    pub detail: String,
}

impl EndReason {
    /// A reason with its text.
    pub fn new(code: EndCode, detail: impl Into<String>) -> EndReason {
        EndReason { code, detail: detail.into() }
    }
}

/// How a session ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Somebody who may end a session ended it.
    Completed,
    /// It ended because something did not work.
    Failed,
}

macro_rules! end_codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal => $outcome:ident,)+) => {
        /// The closed list of reasons.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EndCode { $($(#[doc = $doc])+ $variant,)+ }

        impl EndCode {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [EndCode] = &[$(EndCode::$variant,)+];

            /// The code as it appears on the wire and in the store.
            pub fn as_str(self) -> &'static str {
                match self { $(EndCode::$variant => $text,)+ }
            }

            /// The code that this text names.
            pub fn parse(text: &str) -> Option<EndCode> {
                match text { $($text => Some(EndCode::$variant),)+ _ => None }
            }

            /// How a session that ends for this reason is counted.
            pub fn outcome(self) -> Outcome {
                match self { $(EndCode::$variant => Outcome::$outcome,)+ }
            }

            /// What it means, for the documentation.
            pub fn meaning(self) -> &'static str {
                match self { $(EndCode::$variant => concat!($($doc),+).trim_ascii_start(),)+ }
            }
        }
    };
}

end_codes! {
    /// The client closed its connection or left the room.
    ClientLeft = "client-left" => Completed,
    /// The bot's program ended by itself, without an error.
    BotFinished = "bot-finished" => Completed,
    /// Ended through the API.
    Stopped = "stopped" => Completed,
    /// The dispatcher was shut down and takes its sessions with it.
    DispatcherShutdown = "dispatcher-shutdown" => Completed,
    /// The dispatcher was drained, and the call was not over at the drain's deadline.
    Drained = "drained" => Completed,
    /// The call reached the longest time that the bot's configuration allows.
    MaxDuration = "max-duration" => Completed,
    /// Everybody but the bot left the room, and nobody came back in time.
    Alone = "alone" => Completed,
    /// No client came within the time that the bot waits for one.
    JoinTimeout = "join-timeout" => Failed,
    /// There was no room on the host within the time that the session may wait for it.
    QueueTimeout = "queue-timeout" => Failed,
    /// The machine did not run in time.
    StartTimeout = "start-timeout" => Failed,
    /// The machine runs, but the bot did not become ready in time.
    ReadyTimeout = "ready-timeout" => Failed,
    /// The provider refused to make the machine, or could not.
    StartFailed = "start-failed" => Failed,
    /// The transport refused to make the room, or could not.
    RoomFailed = "room-failed" => Failed,
    /// The bot's program could not be started, or said that it cannot take the call.
    BotNotReady = "bot-not-ready" => Failed,
    /// The bot's program ended with an error.
    BotFailed = "bot-failed" => Failed,
    /// The kernel ended the bot because the machine's memory was used up.
    BotOutOfMemory = "bot-out-of-memory" => Failed,
    /// The machine ended, or its agent was lost, without a word.
    MachineLost = "machine-lost" => Failed,
    /// The client sent more before the bot was ready than is held for it.
    ClientOverflow = "client-overflow" => Failed,
    /// The dispatcher was restarted and could not take this session over.
    DispatcherRestarted = "dispatcher-restarted" => Failed,
}
