//! What operators ask of one dispatcher: draining it, and rolling bots out.

use serde::{Deserialize, Serialize};

use super::{Reserve, SessionState};

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
