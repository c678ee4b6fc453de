//! How a session lies in its row. The one place where core types and stored text meet.

use std::{collections::BTreeMap, time::Duration};

use callbox_core::{
    EndCode, EndReason, Limits, MachineFacts, MachineState, Moments, Outcome, Price, ReadyWhen,
    Restarts, RoomState, Session, SessionId, StartStage, State, StateKind, Time, Usage, UsageSeen,
    Warning,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The `doc` column. Fields are only ever added, with a default: an older replica may still read,
/// and carries what it does not know.
#[derive(Serialize, Deserialize)]
struct Doc {
    transport: String,
    provider: String,
    body: Value,
    base_url: String,
    limits_us: [u64; 5],
    /// Absent in rows from before there was a queue; nobody waits in those.
    #[serde(default)]
    queued_us: u64,
    #[serde(default)]
    warn_us: u64,
    end: Option<(String, String)>,
    incarnation: u32,
    machine: String,
    facts: Option<Facts>,
    room: String,
    accepted: i64,
    started: Option<i64>,
    ready: Option<i64>,
    joined: Option<i64>,
    audible: Option<i64>,
    #[serde(default)]
    admitted: Option<i64>,
    #[serde(default)]
    warn_at: Option<i64>,
    #[serde(default)]
    warning: Option<String>,
    #[serde(default)]
    usage: Option<Seen>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    bot_version: Option<String>,
    #[serde(default)]
    place: String,
    #[serde(default)]
    alone_us: u64,
    #[serde(default)]
    ready_when: Option<String>,
    /// At most so many restarts, within so many microseconds.
    #[serde(default)]
    restarts: (u32, u64),
    #[serde(default)]
    restarted: Vec<i64>,
    #[serde(default)]
    restarted_because: Option<(String, String)>,
    #[serde(default)]
    live_until: Option<i64>,
    #[serde(default)]
    alone_at: Option<i64>,
    #[serde(default)]
    machine_id: Option<String>,
    /// Absent in rows from before machines were replaced; there it is as good as the moment.
    #[serde(default)]
    bot_ready: Option<bool>,
    #[serde(default)]
    bot_said: Option<i64>,
    #[serde(default)]
    bot_present: Option<i64>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    room_options: Value,
    /// What a newer replica wrote, who still wants it.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Seen {
    unique: u64,
    shared: u64,
    cpu_us: u64,
    highest: u64,
    ready: Option<u64>,
    audible: Option<u64>,
    end: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Facts {
    accelerator: String,
    start: String,
    stages_us: Vec<(String, u64)>,
    #[serde(default)]
    not_enforced: Vec<String>,
    /// Billionths of a US dollar for a second, and the day that the price is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    price: Option<(u64, String)>,
}

/// The columns of a row.
pub(super) struct Row {
    pub id: String,
    /// Whose provider holds the machine; empty where every replica reaches it.
    pub place: String,
    pub bot: String,
    pub state: String,
    pub created_at: i64,
    pub deadline_at: i64,
    pub ended_at: Option<i64>,
    /// Only written: the session's state knows it.
    pub end_code: Option<&'static str>,
    /// Only written, as well.
    pub outcome: Option<&'static str>,
    pub doc: String,
}

/// How an outcome is kept.
pub(super) fn outcome_text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Failed => "failed",
    }
}

pub(super) fn to_row(session: &Session) -> Row {
    // Every field by name: a new one cannot be forgotten here.
    let Session {
        id,
        bot,
        transport,
        provider,
        body,
        room_options,
        base_url,
        labels,
        version,
        place,
        limits,
        ready_when,
        restarts,
        state,
        deadline_at,
        live_until,
        alone_at,
        restarted,
        restarted_because,
        incarnation,
        machine_id,
        ready,
        machine,
        facts,
        usage,
        room,
        warn_at,
        warning,
        moments,
        unknown,
    } = session;
    let Limits { queued, start, ready: to_ready, join, live, alone, warn, ending } = limits;
    let doc = Doc {
        transport: transport.clone(),
        provider: provider.clone(),
        body: body.clone(),
        base_url: base_url.clone(),
        limits_us: [start, to_ready, join, live, ending].map(micros),
        queued_us: micros(queued),
        warn_us: micros(warn),
        end: state.why().map(reason_text),
        incarnation: *incarnation,
        machine: machine_text(*machine).into(),
        facts: facts.as_ref().map(|facts| Facts {
            accelerator: facts.accelerator.clone(),
            start: facts.start.clone(),
            not_enforced: facts.not_enforced.clone(),
            price: facts.price.clone().map(|price| (price.nano_usd_per_s, price.as_of)),
            stages_us: facts.stages.iter().map(|s| (s.name.clone(), micros(&s.took))).collect(),
        }),
        room: room_text(*room).into(),
        accepted: moments.accepted.as_micros(),
        started: moments.started.map(Time::as_micros),
        ready: moments.ready.map(Time::as_micros),
        joined: moments.joined.map(Time::as_micros),
        audible: moments.audible.map(Time::as_micros),
        admitted: moments.admitted.map(Time::as_micros),
        warn_at: warn_at.map(Time::as_micros),
        warning: Some(warning_text(*warning).into()),
        usage: usage.as_ref().map(to_seen),
        labels: labels.clone(),
        bot_version: version.clone(),
        place: place.clone(),
        alone_us: micros(alone),
        ready_when: Some(ready_when_text(*ready_when).into()),
        restarts: (restarts.most, micros(&restarts.within)),
        restarted: restarted.iter().map(|at| at.as_micros()).collect(),
        restarted_because: restarted_because.as_ref().map(reason_text),
        live_until: live_until.map(Time::as_micros),
        alone_at: alone_at.map(Time::as_micros),
        machine_id: machine_id.clone(),
        bot_ready: Some(*ready),
        bot_said: moments.bot_said.map(Time::as_micros),
        bot_present: moments.bot_present.map(Time::as_micros),
        room_options: room_options.clone(),
        unknown: unknown.clone(),
    };
    Row {
        id: id.to_string(),
        place: place.clone(),
        bot: bot.clone(),
        state: state.kind().as_str().into(),
        created_at: moments.accepted.as_micros(),
        deadline_at: deadline_at.as_micros(),
        ended_at: moments.ended.map(Time::as_micros),
        end_code: state.why().map(|why| why.code.as_str()),
        outcome: match state {
            State::Ended { why } => Some(outcome_text(why.code.outcome())),
            _ => None,
        },
        doc: serde_json::to_string(&doc).expect("strings, numbers and JSON values serialize"),
    }
}

pub(super) fn from_row(row: Row) -> Result<Session, String> {
    let doc: Doc = serde_json::from_str(&row.doc).map_err(|error| error.to_string())?;
    let state = state_of(&row.state, doc.end)?;
    let [start, ready, join, live, ending] = doc.limits_us.map(Duration::from_micros);
    Ok(Session {
        id: SessionId::parse(&row.id).ok_or("its id is not a uuid")?,
        bot: row.bot,
        transport: doc.transport,
        provider: doc.provider,
        body: doc.body,
        room_options: doc.room_options,
        base_url: doc.base_url,
        labels: doc.labels,
        version: doc.bot_version,
        place: doc.place,
        ready_when: doc.ready_when.as_deref().map_or(Ok(ReadyWhen::Bot), ready_when_of)?,
        restarts: Restarts { most: doc.restarts.0, within: Duration::from_micros(doc.restarts.1) },
        limits: Limits {
            queued: Duration::from_micros(doc.queued_us),
            start,
            ready,
            join,
            live,
            alone: Duration::from_micros(doc.alone_us),
            warn: Duration::from_micros(doc.warn_us),
            ending,
        },
        deadline_at: Time::from_micros(row.deadline_at),
        // In rows from before calls could be restarted, the deadline of a call is its longest time.
        live_until: doc.live_until.map(Time::from_micros).or(match state {
            State::Live => Some(Time::from_micros(row.deadline_at)),
            _ => None,
        }),
        alone_at: doc.alone_at.map(Time::from_micros),
        unknown: doc.unknown,
        state,
        restarted: doc.restarted.into_iter().map(Time::from_micros).collect(),
        restarted_because: doc.restarted_because.map(reason_of).transpose()?,
        machine_id: doc.machine_id,
        ready: doc.bot_ready.unwrap_or(doc.ready.is_some()),
        incarnation: doc.incarnation,
        machine: machine_of(&doc.machine)?,
        facts: doc.facts.map(|facts| MachineFacts {
            accelerator: facts.accelerator,
            start: facts.start,
            not_enforced: facts.not_enforced,
            price: facts.price.map(|(nano_usd_per_s, as_of)| Price { nano_usd_per_s, as_of }),
            stages: facts
                .stages_us
                .into_iter()
                .map(|(name, us)| StartStage { name, took: Duration::from_micros(us) })
                .collect(),
        }),
        usage: doc.usage.map(from_seen),
        room: room_of(&doc.room)?,
        warn_at: doc.warn_at.map(Time::from_micros),
        warning: doc.warning.as_deref().map_or(Ok(Warning::Ahead), warning_of)?,
        moments: Moments {
            accepted: Time::from_micros(doc.accepted),
            admitted: doc.admitted.map(Time::from_micros),
            started: doc.started.map(Time::from_micros),
            ready: doc.ready.map(Time::from_micros),
            bot_said: doc.bot_said.map(Time::from_micros),
            bot_present: doc.bot_present.map(Time::from_micros),
            joined: doc.joined.map(Time::from_micros),
            audible: doc.audible.map(Time::from_micros),
            ended: row.ended_at.map(Time::from_micros),
        },
    })
}

fn state_of(text: &str, end: Option<(String, String)>) -> Result<State, String> {
    let kind = StateKind::parse(text).ok_or_else(|| format!("unknown state {text:?}"))?;
    let why = || reason_of(end.ok_or("it ends without a reason")?);
    Ok(match kind {
        StateKind::Queued => State::Queued,
        StateKind::Starting => State::Starting,
        StateKind::Joining => State::Joining,
        StateKind::Live => State::Live,
        StateKind::Ending => State::Ending { why: why()? },
        StateKind::Ended => State::Ended { why: why()? },
    })
}

fn reason_text(why: &EndReason) -> (String, String) {
    (why.code.as_str().to_owned(), why.detail.clone())
}

fn reason_of((code, detail): (String, String)) -> Result<EndReason, String> {
    let code = EndCode::parse(&code).ok_or_else(|| format!("unknown end code {code:?}"))?;
    Ok(EndReason { code, detail })
}

fn micros(span: &Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn machine_text(state: MachineState) -> &'static str {
    match state {
        MachineState::None => "none",
        MachineState::Wanted => "wanted",
        MachineState::Running => "running",
        MachineState::Failed => "failed",
        MachineState::Gone => "gone",
    }
}

fn machine_of(text: &str) -> Result<MachineState, String> {
    use MachineState as M;
    [M::None, M::Wanted, M::Running, M::Failed, M::Gone]
        .into_iter()
        .find(|state| machine_text(*state) == text)
        .ok_or_else(|| format!("unknown machine state {text:?}"))
}

fn warning_text(warning: Warning) -> &'static str {
    match warning {
        Warning::Ahead => "ahead",
        Warning::Due => "due",
        Warning::Delivered => "delivered",
        Warning::GivenUp => "given-up",
    }
}

fn warning_of(text: &str) -> Result<Warning, String> {
    [Warning::Ahead, Warning::Due, Warning::Delivered, Warning::GivenUp]
        .into_iter()
        .find(|warning| warning_text(*warning) == text)
        .ok_or_else(|| format!("unknown warning {text:?}"))
}

fn ready_when_text(ready_when: ReadyWhen) -> &'static str {
    match ready_when {
        ReadyWhen::Bot => "bot",
        ReadyWhen::Room => "room",
        ReadyWhen::Machine => "machine",
    }
}

fn ready_when_of(text: &str) -> Result<ReadyWhen, String> {
    [ReadyWhen::Bot, ReadyWhen::Room, ReadyWhen::Machine]
        .into_iter()
        .find(|ready_when| ready_when_text(*ready_when) == text)
        .ok_or_else(|| format!("unknown source of readiness {text:?}"))
}

fn to_seen(seen: &UsageSeen) -> Seen {
    let UsageSeen { last, highest_unique_bytes, .. } = seen;
    let UsageSeen { ready_unique_bytes, audible_unique_bytes, end_unique_bytes, .. } = seen;
    let Usage { unique_bytes, shared_bytes, cpu } = last;
    Seen {
        unique: *unique_bytes,
        shared: *shared_bytes,
        cpu_us: micros(cpu),
        highest: *highest_unique_bytes,
        ready: *ready_unique_bytes,
        audible: *audible_unique_bytes,
        end: *end_unique_bytes,
    }
}

fn from_seen(seen: Seen) -> UsageSeen {
    UsageSeen {
        last: Usage {
            unique_bytes: seen.unique,
            shared_bytes: seen.shared,
            cpu: Duration::from_micros(seen.cpu_us),
        },
        highest_unique_bytes: seen.highest,
        ready_unique_bytes: seen.ready,
        audible_unique_bytes: seen.audible,
        end_unique_bytes: seen.end,
    }
}

fn room_text(state: RoomState) -> &'static str {
    match state {
        RoomState::None => "none",
        RoomState::Wanted => "wanted",
        RoomState::Open => "open",
        RoomState::Gone => "gone",
    }
}

fn room_of(text: &str) -> Result<RoomState, String> {
    [RoomState::None, RoomState::Wanted, RoomState::Open, RoomState::Gone]
        .into_iter()
        .find(|state| room_text(*state) == text)
        .ok_or_else(|| format!("unknown room state {text:?}"))
}
