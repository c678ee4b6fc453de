//! The row: what is known of one session.
//!
//! ```text
//!             Admitted         MachineStarted         BotReady + ClientJoined
//!   Queued ─────────────▶ Starting ─────────▶ Joining ───────────────────▶ Live
//!      │                     │                   │                          │
//!      └─────────────────────┴───────┬───────────┴──────────────────────────┘
//!                                    │ any reason: left, stopped, failed, deadline
//!                                    ▼
//!                              Ending { why } ──────────────▶ Ended { why }
//!                                      machine and room are gone
//! ```
//!
//! A bot that dies in its call may get a fresh machine: then the session is `Starting` again, with
//! the next incarnation, as soon as the machine before it is gone.
//!
//! Failure is not a second ending: every end goes through `Ending`, and `Ended` means that
//! nothing of the session is left in the world.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{EndReason, Limits, MachineFacts, ReadyWhen, Restarts, Time, UsageSeen};

/// A session's id: a uuid4, as Pipecat's clients expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub Uuid);

impl SessionId {
    /// The id that this text names, if it is a uuid.
    pub fn parse(text: &str) -> Option<SessionId> {
        Uuid::parse_str(text).ok().map(SessionId)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The name of a session's n-th machine: everybody who knows the session can find the machine,
/// whatever was lost on the way. At most 40 characters of `[a-z0-9-]`.
pub fn machine_name(session: SessionId, incarnation: u32) -> String {
    format!("cb-{}-{incarnation}", session.0.simple())
}

/// The session and the incarnation of a machine's name; none if it is not one of [`machine_name`].
pub fn of_machine_name(name: &str) -> Option<(SessionId, u32)> {
    let (id, incarnation) = name.strip_prefix("cb-")?.rsplit_once('-')?;
    let found = (SessionId::parse(id)?, incarnation.parse().ok()?);
    // A number or an id can be written in more ways than one.
    (machine_name(found.0, found.1) == name).then_some(found)
}

/// The name of a machine that a replica has in reserve, until a session takes it. Names are unique
/// by `unique`; neither part has a dash.
pub fn reserve_name(keeper: &str, unique: &str) -> String {
    format!("cbr-{keeper}-{unique}")
}

/// The replica that has the machine of this name in reserve; none if it is not one of
/// [`reserve_name`].
pub fn of_reserve_name(name: &str) -> Option<&str> {
    let (keeper, unique) = name.strip_prefix("cbr-")?.split_once('-')?;
    (!keeper.is_empty() && !unique.is_empty() && !unique.contains('-')).then_some(keeper)
}

/// One session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Name of the bot in the configuration.
    pub bot: String,
    /// Name of the transport.
    pub transport: String,
    /// Name of the provider.
    pub provider: String,
    /// The `body` of the request, for the bot.
    pub body: Value,
    /// What the request asks of the room, in its transport's own words; null where nothing.
    pub room_options: Value,
    /// Address at which this client reaches the dispatcher (`ws://host:port`).
    pub base_url: String,
    /// What its client calls it by; sessions are found by it.
    pub labels: BTreeMap<String, String>,
    /// Digest of the bot's image: all its machines are made from it. None where none is known.
    pub version: Option<String>,
    /// The host that its machine is on, where only a dispatcher on that host can reach it; empty
    /// where every dispatcher can.
    pub place: String,
    /// Its deadlines' spans.
    pub limits: Limits,
    /// What counts as ready.
    pub ready_when: ReadyWhen,
    /// What its bot's death means.
    pub restarts: Restarts,
    /// Where it is in its life.
    pub state: State,
    /// When the current state times out.
    pub deadline_at: Time,
    /// When the longest call is over; set when the call begins, and not moved by restarts.
    pub live_until: Option<Time>,
    /// When a bot that is alone in its room has waited long enough; none while it is not alone.
    pub alone_at: Option<Time>,
    /// When its bot died and a fresh machine was begun, as far as that counts.
    pub restarted: Vec<Time>,
    /// Why it got its last fresh machine, or is about to.
    pub restarted_because: Option<EndReason>,
    /// Number of the current machine, from 1; 0 before the first.
    pub incarnation: u32,
    /// The provider's own name for the current machine, as soon as it is known.
    pub machine_id: Option<String>,
    /// The bot in the current machine can take the call. (The moment is that of the first.)
    pub ready: bool,
    /// What is owed about the current machine.
    pub machine: MachineState,
    /// What is known of the machine that runs or ran.
    pub facts: Option<MachineFacts>,
    /// What the machine uses or used, where its provider can tell.
    pub usage: Option<UsageSeen>,
    /// What is owed about the room.
    pub room: RoomState,
    /// When the bot is to be warned that its call will end; set when the call begins.
    pub warn_at: Option<Time>,
    /// What became of that warning.
    pub warning: Warning,
    /// When each moment came.
    pub moments: Moments,
    /// What a newer dispatcher wrote down and this one has no word for: kept as it is, for the
    /// newer one.
    pub unknown: Map<String, Value>,
}

/// Where a session is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Accepted; it waits for room, and nothing was asked of anybody yet.
    Queued,
    /// Machine and room are being made.
    Starting,
    /// The machine runs; bot or client are not there yet.
    Joining,
    /// Bot and client are there.
    Live,
    /// Something of it is left in the world.
    Ending {
        /// The first reason that was seen; later ones do not replace it.
        why: EndReason,
    },
    /// Nothing of it is left in the world.
    Ended {
        /// Why it ended.
        why: EndReason,
    },
}

/// [`State`] without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum StateKind {
    Queued,
    Starting,
    Joining,
    Live,
    Ending,
    Ended,
}

impl StateKind {
    /// Every state, in order of life.
    pub const ALL: [StateKind; 6] = [
        StateKind::Queued,
        StateKind::Starting,
        StateKind::Joining,
        StateKind::Live,
        StateKind::Ending,
        StateKind::Ended,
    ];

    /// As it appears on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            StateKind::Queued => "queued",
            StateKind::Starting => "starting",
            StateKind::Joining => "joining",
            StateKind::Live => "live",
            StateKind::Ending => "ending",
            StateKind::Ended => "ended",
        }
    }

    /// The state that this text names.
    pub fn parse(text: &str) -> Option<StateKind> {
        StateKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl State {
    /// Which state it is.
    pub fn kind(&self) -> StateKind {
        match self {
            State::Queued => StateKind::Queued,
            State::Starting => StateKind::Starting,
            State::Joining => StateKind::Joining,
            State::Live => StateKind::Live,
            State::Ending { .. } => StateKind::Ending,
            State::Ended { .. } => StateKind::Ended,
        }
    }

    /// Why it ends or ended.
    pub fn why(&self) -> Option<&EndReason> {
        match self {
            State::Ending { why } | State::Ended { why } => Some(why),
            State::Queued | State::Starting | State::Joining | State::Live => None,
        }
    }
}

/// What the world may hold of the current machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineState {
    /// Nobody was asked for one.
    None,
    /// The intention is saved; the provider may or may not have made it.
    Wanted,
    /// The provider says that it runs.
    Running,
    /// Its bot died. It is to go, and another one to come; one at a time.
    Failed,
    /// The provider says that it is gone, or that it was never made.
    Gone,
}

/// What the world may hold of the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoomState {
    /// Nobody was asked for one.
    None,
    /// The intention is saved; the transport may or may not have made it.
    Wanted,
    /// It exists.
    Open,
    /// It is gone, or was never made.
    Gone,
}

/// What became of the warning before a call's longest time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Warning {
    /// It is not time yet, or none is wanted.
    Ahead,
    /// The bot must be told now.
    Due,
    /// The bot was told.
    Delivered,
    /// The bot could not be told.
    GivenUp,
}

/// When each moment of a session came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moments {
    /// The request was accepted.
    pub accepted: Time,
    /// There was room for it.
    pub admitted: Option<Time>,
    /// The machine runs.
    pub started: Option<Time>,
    /// The bot can take the call, as far as its configuration asks to know.
    pub ready: Option<Time>,
    /// The bot said that it can take the call.
    pub bot_said: Option<Time>,
    /// The transport saw the bot in the room.
    pub bot_present: Option<Time>,
    /// The client is in.
    pub joined: Option<Time>,
    /// First bot audio left the machine.
    pub audible: Option<Time>,
    /// Nothing is left in the world.
    pub ended: Option<Time>,
}

/// What is known of a session when it is asked for.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // as in `Session`
pub struct SessionSpec {
    pub id: SessionId,
    pub bot: String,
    pub transport: String,
    pub provider: String,
    pub body: Value,
    pub room_options: Value,
    pub base_url: String,
    pub labels: BTreeMap<String, String>,
    pub version: Option<String>,
    pub place: String,
    pub limits: Limits,
    pub ready_when: ReadyWhen,
    pub restarts: Restarts,
}

impl Session {
    /// A session that was just accepted.
    pub fn accepted(spec: SessionSpec, now: Time) -> Session {
        Session {
            id: spec.id,
            bot: spec.bot,
            transport: spec.transport,
            provider: spec.provider,
            body: spec.body,
            room_options: spec.room_options,
            base_url: spec.base_url,
            labels: spec.labels,
            version: spec.version,
            place: spec.place,
            limits: spec.limits,
            ready_when: spec.ready_when,
            restarts: spec.restarts,
            state: State::Queued,
            deadline_at: now.after(spec.limits.queued),
            live_until: None,
            alone_at: None,
            restarted: Vec::new(),
            restarted_because: None,
            incarnation: 0,
            machine_id: None,
            unknown: Map::new(),
            ready: false,
            machine: MachineState::None,
            facts: None,
            usage: None,
            room: RoomState::None,
            warn_at: None,
            warning: Warning::Ahead,
            moments: Moments::of(now),
        }
    }

    /// When all deadlines have passed, one after the other; only a bot that dies more often than
    /// it may at once, before its client came, can last longer. It depends on nothing that changes,
    /// so that what is made to last until then is made alike when it is made again.
    pub fn ends_by(&self) -> Time {
        let Limits { queued, start, ready, join, live, ending, .. } = self.limits;
        // Each fresh machine has its own time to come and to be called.
        let machines = (start + ready + join).saturating_mul(self.restarts.most.saturating_add(1));
        let most = [machines, live, ending].into_iter().fold(queued, Duration::saturating_add);
        self.moments.accepted.after(most)
    }

    /// Name of the current machine; none before the first.
    pub fn machine_name(&self) -> Option<String> {
        (self.incarnation > 0).then(|| machine_name(self.id, self.incarnation))
    }
}

impl Moments {
    /// Only accepted.
    fn of(accepted: Time) -> Moments {
        Moments {
            accepted,
            admitted: None,
            started: None,
            ready: None,
            bot_said: None,
            bot_present: None,
            joined: None,
            audible: None,
            ended: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_reserve_name_their_replica_and_are_nobody_elses() {
        let name = reserve_name("00000000000000aa", "1f");
        assert_eq!(
            (of_reserve_name(&name), of_machine_name(&name)),
            (Some("00000000000000aa"), None)
        );
        let session = machine_name(SessionId(Uuid::from_u128(1)), 1);
        for other in [&*session, "cbr-", "cbr--1", "cbr-a-", "cbr-a-b-c", "cbr-a"] {
            assert_eq!(of_reserve_name(other), None, "{other}");
        }
    }
}
