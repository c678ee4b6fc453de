//! What a trouble does.

use callbox_fly::Action;
use callbox_fly::wire::State;
use serde::{Deserialize, Serialize};

use super::super::refusal::Refusal;

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Effect {
    /// 408, before or after it was done: after is Fly's "silent success". On create, when no
    /// action is named.
    Timeout {
        /// Whether it was done.
        when: When,
    },
    /// A 5xx. On every call, when no action is named.
    ServerError {
        /// Its status.
        status: u16,
        /// Whether it was done.
        when: When,
    },
    /// The connection is cut. On every call, when no action is named.
    Cut {
        /// Whether it was done, and how much of the answer comes.
        when: When,
    },
    /// Refused with one of the texts that are known. On create, when no action is named.
    Refuse {
        /// Which one.
        preset: Preset,
    },
    /// Refused with any status and text. On create, when no action is named.
    Answer {
        /// The status.
        status: u16,
        /// `error` of the body.
        error: String,
        /// `status` of the body.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// The answer comes late. On every call, when no action is named.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// A wait is answered with 504 at once.
    WaitTimesOut,
    /// A machine stays in `created` for longer.
    SlowCreate {
        /// Milliseconds.
        ms: u64,
    },
    /// A machine stays in `created` until it is destroyed.
    StuckCreated,
    /// A machine fails to launch, and goes by itself.
    LaunchFails,
    /// A start from `suspended` boots cold, without a word.
    ColdStart,
    /// A machine's host is lost: the machine ends, and nobody reaches it any more. Decided at
    /// create.
    HostLost {
        /// Milliseconds after the machine was started.
        after_ms: u64,
    },
    /// A machine's program ends by itself. Decided at create.
    Exits {
        /// Milliseconds after the machine was started.
        after_ms: u64,
        /// Its exit code.
        code: i32,
    },
    /// Lists leave out new machines.
    ListOmitsNew {
        /// How old a machine is before lists know it, in milliseconds.
        for_ms: u64,
    },
    /// Lists show destroyed machines, as they were.
    ListShowsDestroyed {
        /// For how long, in milliseconds.
        for_ms: u64,
    },
}

/// When a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Nothing was done.
    Before,
    /// All was done.
    After,
    /// All was done, and half of the answer comes.
    Half,
}

/// Refusals whose texts are known (fly.md sections 5 and 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// 429
    RateLimited,
    /// 422, of the region
    NoCapacity,
    /// 409, of the region
    NoCapacityConflict,
    /// 409, of a host, at create
    NoMemory,
    /// 409, of a host, at start and update
    NoRoomOnHost,
    /// 409, of a host
    NoAddress,
    /// Status not known, taken as 409
    HostFrozen,
    /// 403
    Quota,
    /// 422
    MachineLimit,
    /// 409
    Concurrent,
    /// 409
    LeaseHeld,
    /// 400
    ImageMissing,
    /// 412, as for a start while `created`
    WrongState,
    /// 401
    NoToken,
    /// 403
    NotYours,
}

impl Preset {
    pub(crate) fn refusal(self, organization: &str, region: &str) -> Refusal {
        match self {
            Preset::RateLimited => Refusal::rate_limited(),
            Preset::NoCapacity => Refusal::no_capacity(),
            Preset::NoCapacityConflict => Refusal::no_capacity_conflict(),
            Preset::NoMemory => Refusal::no_memory(),
            Preset::NoRoomOnHost => Refusal::no_room_on_host(),
            Preset::NoAddress => Refusal::no_address(),
            Preset::HostFrozen => Refusal::host_frozen(),
            Preset::Quota => Refusal::quota(organization, 1_970_176, region),
            Preset::MachineLimit => Refusal::machine_limit(),
            Preset::Concurrent => Refusal::concurrent(),
            Preset::LeaseHeld => {
                let owner = "00000000-0000-0000-0000-000000000000@tokens.fly.io";
                Refusal::lease_held("00000000000000", owner, "2999-01-01T00:00:00Z")
            }
            Preset::ImageMissing => Refusal::image_missing("registry.fly.io/app@sha256:00"),
            Preset::WrongState => Refusal::cannot_start(&State::Created),
            Preset::NoToken => Refusal::no_token(),
            Preset::NotYours => Refusal::not_yours(),
        }
    }
}

impl Effect {
    /// Whether it changes what becomes of a call, and not of a machine.
    pub(super) fn is_on_call(&self) -> bool {
        matches!(
            self,
            Effect::Timeout { .. }
                | Effect::ServerError { .. }
                | Effect::Cut { .. }
                | Effect::Refuse { .. }
                | Effect::Answer { .. }
                | Effect::Slow { .. }
                | Effect::WaitTimesOut
        )
    }

    /// Which calls it strikes when its rule names no action.
    pub(super) fn is_about(&self, action: Action) -> bool {
        match self {
            Effect::ServerError { .. } | Effect::Cut { .. } | Effect::Slow { .. } => true,
            Effect::WaitTimesOut => action == Action::Wait,
            Effect::ColdStart => action == Action::Start,
            Effect::ListOmitsNew { .. } | Effect::ListShowsDestroyed { .. } => {
                matches!(action, Action::List | Action::ListOrg)
            }
            Effect::Timeout { .. }
            | Effect::Refuse { .. }
            | Effect::Answer { .. }
            | Effect::SlowCreate { .. }
            | Effect::StuckCreated
            | Effect::LaunchFails
            | Effect::HostLost { .. }
            | Effect::Exits { .. } => action == Action::Create,
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Effect::ServerError { status, .. } if !(500..600).contains(status) => {
                Err(format!("{status} is no status of 500 to 599"))
            }
            Effect::Answer { status, .. } if !(400..600).contains(status) => {
                Err(format!("{status} is no status of 400 to 599"))
            }
            Effect::Timeout { when: When::Half } | Effect::ServerError { when: When::Half, .. } => {
                Err("half an answer comes only of a cut connection".to_owned())
            }
            _ => Ok(()),
        }
    }
}
