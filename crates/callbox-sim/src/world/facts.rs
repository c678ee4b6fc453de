//! What the world did to a session, so that its end can be held against it: nothing ends without a
//! cause.

use std::collections::BTreeSet;

use callbox_core::EndCode;
use tokio::time::Instant;

/// Causes, each of which justifies some ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A client asked for its end.
    Stopped,
    /// Its client left the room.
    Left,
    /// Its bot ended in peace.
    BotFinished,
    /// Its bot ended with an error, or was ended.
    BotFailed,
    /// The kernel ended its bot.
    OutOfMemory,
    /// Its bot said that it cannot take the call, or ended before it could.
    BotNotReady,
    /// Its machine died, fell silent or ended itself.
    MachineLost,
    /// Its provider said that it refuses.
    Refused,
    /// Its transport said that it refuses, or lost the room.
    RoomRefused,
    /// The dispatcher that drove it was told to end its sessions.
    ShutDown,
    /// It was taken over by another host's dispatcher, when the store had not heard of its own
    /// for longer than a machine lives alone.
    HostLost,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    causes: BTreeSet<Cause>,
    /// Names of machine objects that got the session's data, with their incarnation.
    pub told: Vec<(u32, u64)>,
    /// Its last driver let go of it then, and nobody has taken it over since.
    pub let_go: Option<Instant>,
}

impl Facts {
    /// The world did this.
    pub fn did(&mut self, cause: Cause) {
        self.causes.insert(cause);
    }

    /// Whether the world did this.
    pub fn has(&self, cause: Cause) -> bool {
        self.causes.contains(&cause)
    }

    /// Whether something that the world did justifies this end. Deadlines are looked at elsewhere.
    pub fn justify(&self, code: EndCode) -> bool {
        use Cause as C;
        let any = |causes: &[Cause]| causes.iter().any(|cause| self.has(*cause));
        match code {
            EndCode::Stopped => any(&[C::Stopped]),
            EndCode::Alone => any(&[C::Left]),
            EndCode::BotFinished => any(&[C::BotFinished]),
            EndCode::BotFailed => any(&[C::BotFailed]),
            EndCode::BotOutOfMemory => any(&[C::OutOfMemory]),
            EndCode::BotNotReady => {
                any(&[C::BotNotReady, C::BotFinished, C::BotFailed, C::OutOfMemory])
            }
            EndCode::MachineLost => any(&[C::MachineLost, C::HostLost]),
            EndCode::StartFailed => any(&[C::Refused]),
            EndCode::RoomFailed => any(&[C::RoomRefused]),
            EndCode::DispatcherShutdown | EndCode::Drained => any(&[C::ShutDown]),
            EndCode::MaxDuration
            | EndCode::JoinTimeout
            | EndCode::QueueTimeout
            | EndCode::StartTimeout
            | EndCode::ReadyTimeout => true,
            // Nothing here goes through a dispatcher's own connections.
            EndCode::ClientLeft | EndCode::ClientOverflow | EndCode::DispatcherRestarted => false,
        }
    }
}
