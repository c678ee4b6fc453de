//! What operators ask of one dispatcher: draining it, rolling bots out, and sweeping.

use serde::{Deserialize, Serialize};

use super::{Reserve, SessionState};

/// Answer of `/v1/sweep`: what callbox made outside and no living session claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sweep {
    /// Whether it was only looked.
    pub dry_run: bool,
    /// What was found.
    pub found: Vec<SweepFound>,
    /// Who did not say what he has: it is looked at again later.
    pub not_listed: Vec<SweepNotListed>,
}

/// Something that no living session claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SweepFound {
    /// `relay` | `machine` | `room`.
    pub kind: String,
    /// Who has it: a provider, a transport, or `host`.
    pub provider: String,
    /// What it is called there; of a relay or a room, its session.
    pub name: String,
    /// `remove` (a dry run) | `removed` | `failed` | `young` | `others`; the last two are left
    /// alone.
    pub outcome: String,
    /// Why, in words.
    pub detail: String,
}

/// A list that was not to be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SweepNotListed {
    /// As in [`SweepFound::kind`].
    pub kind: String,
    /// As in [`SweepFound::provider`].
    pub provider: String,
    /// What came of it.
    pub detail: String,
}

/// Body of `POST /v1/drain`. All optional.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainRequest {
    /// Sessions that live so many milliseconds from now are ended, `drained`; none are, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Answer of `/v1/drain`: whether the dispatcher that was asked takes sessions, and which of its
/// own still live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drain {
    /// Id of the dispatcher that answered, as in `/v1/replicas`; empty from one that is older.
    #[serde(default)]
    pub replica: String,
    /// Whether starts are refused.
    pub draining: bool,
    /// When that began.
    pub since: Option<String>,
    /// When what still lives is ended.
    pub deadline_at: Option<String>,
    /// Sessions of this dispatcher that have not ended.
    pub live: u32,
    /// Those of them that wait for room.
    pub queued: u32,
    /// Which they are, oldest first; at most 100.
    pub sessions: Vec<DrainSession>,
}

/// A session that a drain waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainSession {
    /// Its id.
    pub id: String,
    /// Its bot.
    pub bot: String,
    /// Where it is in its life.
    pub state: SessionState,
    /// When it was accepted.
    pub accepted: String,
    /// When its state times out by itself.
    pub deadline_at: String,
}

/// Answer of `GET /v1/rollouts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutList {
    /// By name of the bot.
    pub rollouts: Vec<Rollout>,
}

/// The versions of one bot at the dispatcher that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rollout {
    /// Id of the dispatcher that answered, as in `/v1/replicas`; empty from one that is older.
    #[serde(default)]
    pub replica: String,
    /// Name of the bot.
    pub bot: String,
    /// The one that new sessions get first, then the one that is to take its place, then earlier
    /// ones that still have sessions.
    pub versions: Vec<RolloutVersion>,
}

/// One version of a bot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutVersion {
    /// Digest of the bot's image; absent where its provider knows none, or while it is looked up.
    pub version: Option<String>,
    /// Whether new sessions get it.
    pub current: bool,
    /// Where it is in its life.
    pub state: RolloutState,
    /// What its preparation is at.
    pub stage: Option<String>,
    /// Why it failed.
    pub why: Option<String>,
    /// Since when its state is so.
    pub since: String,
    /// Its sessions that have not ended.
    pub live: u32,
    /// How far its reserve is filled; absent where it has none.
    pub reserve: Option<Reserve>,
}

/// Where a version of a bot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RolloutState {
    /// Its template is being made, or its reserve filled.
    Preparing,
    /// New sessions get it.
    Serving,
    /// Earlier sessions have it, and no new ones.
    Finishing,
    /// It could not be prepared. If it is not `current`, all stays as it was.
    Failed,
}
