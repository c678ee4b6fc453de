//! The public HTTP API under `/v1`, and the start shapes of Pipecat's runner and Pipecat Cloud.
//!
//! Times are RFC 3339 strings in UTC with microseconds; spans are milliseconds as numbers.
//! Enum values are kebab-case. Within v1 there are only additions.

mod operate;
mod start;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use operate::{
    Drain, DrainRequest, DrainSession, Rollout, RolloutList, RolloutState, RolloutVersion, Sweep,
    SweepFound, SweepNotListed,
};
pub use start::{DailyJoin, Join, StartRequest, WebsocketJoin};

/// Response header of a start that carries the session's id (the websocket client refuses
/// unknown keys in the body).
pub const SESSION_ID_HEADER: &str = "x-callbox-session-id";

/// Response header of a start whose session must wait: its position in the queue, 1 is next.
pub const QUEUE_POSITION_HEADER: &str = "x-callbox-queue-position";

/// Response header of a start whose session must wait: how long it will, in milliseconds, at the
/// pace of late; absent while nothing is known.
pub const QUEUE_WAIT_HEADER: &str = "x-callbox-queue-wait-ms";

/// Body of every answer that is not 2xx. One shape that Pipecat's runner users (`detail`),
/// client-js (`info`) and Pipecat Cloud's SDK (`error`, `code`) can all read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What went wrong, for people.
    pub error: String,
    /// Stable code. `429` for capacity, as Pipecat Cloud's SDK expects; else kebab-case.
    pub code: String,
    /// Same text as `error`, under the name that client-js shows.
    pub info: String,
    /// Same text as `error`, under the name that Pipecat's runner uses.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the same request may be sent again.
    #[serde(default)]
    pub retry: Retry,
}

/// What a failed request means for the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// Nothing happened: send it again, after `Retry-After` where there is one.
    Safe,
    /// It may have happened: send it again with the same `Idempotency-Key`; without one it may
    /// happen twice.
    SameKey,
    /// Nothing happened, and nothing will as long as the request is as it is.
    #[default]
    Never,
}

/// A session, as everybody sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Session {
    /// uuid4.
    pub id: String,
    /// Name of the bot in the configuration.
    pub bot: String,
    /// `websocket` | …
    pub transport: String,
    /// Who runs the machine: `local`, `fake`, …
    pub provider: String,
    /// What its client calls it by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Digest of the bot's image; all its machines are made from it.
    #[serde(default)]
    pub version: Option<String>,
    /// The host that its machine is on, where machines belong to hosts.
    #[serde(default)]
    pub place: Option<String>,
    /// Where the session is in its life.
    pub state: SessionState,
    /// Why it is ending or has ended.
    pub end_reason: Option<EndReason>,
    /// How it ended; set when `state` is `ended`.
    pub outcome: Option<Outcome>,
    /// Which machine of the session this is, from 1; 0 before the first.
    pub incarnation: u32,
    /// Name of the current machine.
    pub machine: Option<String>,
    /// The provider's own name for it, where it has one.
    #[serde(default)]
    pub machine_id: Option<String>,
    /// How often its bot died of late and a fresh machine was begun.
    #[serde(default)]
    pub restarts: u32,
    /// Why that was, the last time.
    #[serde(default)]
    pub restarted_because: Option<EndReason>,
    /// `kvm` | `tcg`, known once started.
    pub accelerator: Option<String>,
    /// `clone` | `cold` | `reserve`, known once started.
    pub start: Option<String>,
    /// How well the machine is kept apart from its host and from others, known once started.
    #[serde(default)]
    pub isolation: Option<Isolation>,
    /// When each moment came.
    pub moments: Moments,
    /// The same counted in milliseconds from `accepted`.
    pub stages_ms: StagesMs,
    /// Milliseconds that parts of the machine's start took, in order; depends on the provider.
    pub start_stages: Vec<Stage>,
    /// When the current state times out.
    pub deadline_at: Option<String>,
    /// When a bot that is alone in its room has waited long enough.
    #[serde(default)]
    pub alone_until: Option<String>,
    /// Its place in the queue, while `state` is `queued`.
    #[serde(default)]
    pub queue: Option<QueuePlace>,
    /// The warning of the bot before the call's longest time is over; set when the call begins.
    #[serde(default)]
    pub warning: Option<Warning>,
    /// What the machine uses or used of its host; absent where its provider cannot tell.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// What the session costs or has cost; absent where its machines cost nothing, or nobody knows.
    #[serde(default)]
    pub cost: Option<Cost>,
}

/// An estimate by list prices: without traffic, taxes and discounts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cost {
    /// US dollars for the session's machines.
    pub machine_usd: f64,
    /// Milliseconds that they ran: from the first one's start until nothing is left, or now.
    pub machine_ms: f64,
    /// The day that the prices are of.
    pub prices_as_of: String,
}

/// What machines cost (`GET /v1/prices`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PriceList {
    /// A line for each bot, by name.
    pub bots: Vec<BotPrice>,
}

/// What one bot's machines cost, as this dispatcher is configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BotPrice {
    /// The bot.
    pub bot: String,
    /// Who runs its machines.
    pub provider: String,
    /// US dollars for an hour of a session; absent where it costs nothing, or nobody knows.
    pub session_usd_per_hour: Option<f64>,
    /// Machines that shall wait in this dispatcher's reserve.
    pub reserve: u32,
    /// US dollars for a day of all of them; absent as before.
    pub reserve_usd_per_day: Option<f64>,
    /// The day that the prices are of.
    pub prices_as_of: Option<String>,
}

/// How well a machine is kept apart from its host and from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Isolation {
    /// `production` | `development`.
    pub level: IsolationLevel,
    /// What is not enforced, in words; empty for `production`.
    pub not_enforced: Vec<String>,
}

/// What a machine's isolation is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum IsolationLevel {
    /// Hardware virtualisation, and nothing is missing around it.
    Production,
    /// Software emulation, or something is missing.
    Development,
}

/// A session's place in the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueuePlace {
    /// 1 is next.
    pub position: u32,
    /// How long it will wait, in milliseconds, at the pace of late; absent while nothing is known.
    pub wait_ms: Option<f64>,
}

/// The warning of a bot that its call will end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warning {
    /// When it is due.
    pub at: String,
    /// What became of it.
    pub state: WarningState,
}

/// What became of a [`Warning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WarningState {
    /// It is not time yet.
    Ahead,
    /// The bot is being told.
    Due,
    /// The bot was told.
    Delivered,
    /// The bot could not be told.
    GivenUp,
}

/// Data of the event `warning` in a session's stream: its call will end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndWarning {
    /// How long the call still has, in milliseconds.
    pub ends_in_ms: f64,
    /// The end code that it will have.
    pub reason: String,
}

/// Data of the event `restarting` in a session's stream: its bot died, and a fresh machine is made
/// in the same room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Restarting {
    /// Which machine of the session the fresh one is.
    pub incarnation: u32,
    /// What became of the one before, as the session's end would say it.
    pub reason: EndReason,
    /// How many more there would be if this one failed at once.
    pub left: u32,
}

/// What a machine uses or used of its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Memory that would be free again if the machine ended, in bytes, as last measured.
    pub unique_bytes: u64,
    /// Memory that it has in common with others (its template, programs), as last measured.
    pub shared_bytes: u64,
    /// The most that was measured of `unique_bytes`.
    pub highest_unique_bytes: u64,
    /// Time of processors that it used since it was made, in milliseconds.
    pub cpu_ms: f64,
    /// `unique_bytes` when the bot had become ready.
    pub ready_unique_bytes: Option<u64>,
    /// `unique_bytes` when the first bot audio had left the machine.
    pub audible_unique_bytes: Option<u64>,
    /// `unique_bytes` right before the machine was taken away.
    pub end_unique_bytes: Option<u64>,
}

/// One part of a machine's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stage {
    /// What was done.
    pub name: String,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// Accepted; it waits for room, and nothing was asked of anybody yet.
    Queued,
    /// The machine (and the room) are being made.
    Starting,
    /// The machine runs; bot or client are not there yet.
    Joining,
    /// Bot and client are both there.
    Live,
    /// Something of it is still left in the world.
    Ending,
    /// Nothing of it is left in the world.
    Ended,
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndReason {
    /// Stable, kebab-case; listed in `docs/http-api.md`.
    pub code: String,
    /// For people.
    pub detail: String,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Somebody who may end it ended it: client, bot, API.
    Completed,
    /// It ended because something did not work.
    Failed,
}

/// The five moments of a session that are never confused, and its end. RFC 3339, UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Moments {
    /// The request was accepted.
    pub accepted: Option<String>,
    /// There was room for it; the same as `accepted` where it did not have to wait.
    #[serde(default)]
    pub admitted: Option<String>,
    /// The machine runs.
    pub started: Option<String>,
    /// The bot can take the call, as far as its configuration asks to know.
    pub ready: Option<String>,
    /// The bot said that it can take the call.
    #[serde(default)]
    pub bot_said: Option<String>,
    /// The transport saw the bot in the room.
    #[serde(default)]
    pub bot_present: Option<String>,
    /// The client is in.
    pub joined: Option<String>,
    /// First bot audio left the machine.
    pub audible: Option<String>,
    /// Nothing is left in the world.
    pub ended: Option<String>,
}

/// [`Moments`] in milliseconds from `accepted`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StagesMs {
    /// Always 0: everything is counted from here.
    pub accepted: Option<f64>,
    /// See [`Moments::admitted`].
    #[serde(default)]
    pub admitted: Option<f64>,
    /// See [`Moments::started`].
    pub started: Option<f64>,
    /// See [`Moments::ready`].
    pub ready: Option<f64>,
    /// See [`Moments::bot_said`].
    #[serde(default)]
    pub bot_said: Option<f64>,
    /// See [`Moments::bot_present`].
    #[serde(default)]
    pub bot_present: Option<f64>,
    /// See [`Moments::joined`].
    pub joined: Option<f64>,
    /// See [`Moments::audible`].
    pub audible: Option<f64>,
    /// See [`Moments::ended`].
    pub ended: Option<f64>,
}

/// Answer of `GET /v1/sessions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionList {
    /// Newest first.
    pub sessions: Vec<Session>,
    /// Pass as `before=` to get the next page; absent on the last one.
    pub next: Option<String>,
}

/// Answer of `GET /v1/replicas`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplicaList {
    /// The dispatchers that share this one's database, itself included.
    pub replicas: Vec<Replica>,
}

/// One running dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replica {
    /// Its id, the same as long as it has its data directory.
    pub id: String,
    /// Where the others reach it.
    pub url: String,
    /// Whether it lives. One that was silent for some minutes is not in the list any more.
    pub state: ReplicaState,
    /// Living sessions that it drives.
    pub sessions: u32,
    /// Whether it gave this answer.
    pub answered: bool,
}

/// Whether a replica lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaState {
    /// It does.
    Alive,
    /// It was not heard of for 6 seconds: others go on with its sessions.
    Silent,
    /// A word of a newer dispatcher.
    #[serde(other)]
    Unknown,
}

/// Answer of `GET /v1/info`; needs no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Info {
    /// Always `callbox`.
    pub name: String,
    /// Version of the dispatcher.
    pub version: String,
    /// Whether a start needs a key.
    pub auth: bool,
    /// The bots that can be called.
    pub bots: Vec<BotInfo>,
    /// How far the bots' reserves are filled, by bot; those without one are absent.
    #[serde(default)]
    pub reserves: BTreeMap<String, Reserve>,
    /// Sessions that wait for room.
    #[serde(default)]
    pub queued: u32,
}

/// How far a bot's reserve is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reserve {
    /// Machines that can be taken at once.
    pub ready: u32,
    /// Machines that shall be there.
    pub target: u32,
}

/// One bot in [`Info`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BotInfo {
    /// Its name, for [`StartRequest::bot`].
    pub name: String,
    /// The transports it allows, the default first.
    pub transports: Vec<String>,
}

/// One line of a session's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogEntry {
    /// Counts from 1 within the session.
    pub seq: u64,
    /// Milliseconds since the epoch, by the writer's clock.
    pub at_ms: u64,
    /// Who wrote it.
    pub source: LogSource,
    /// The line.
    pub text: String,
}

/// Who wrote a [`LogEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LogSource {
    /// The bot's standard output or error.
    Bot,
    /// The agent in the machine.
    Agent,
    /// The dispatcher.
    Dispatcher,
}
