//! One start of a benchmark, and what it is counted as.

use callbox_protocol::api::{Session, Stage, StagesMs, Usage};
use serde::Serialize;

use crate::api_client::{ApiClient, ApiError};
use crate::caller::{self, ClientMs, Placed, Plan};
use crate::error::CliError;
use crate::progress::Progress;

/// The provider's stages that no dispatcher could save: a bare start of the machine's process,
/// its state, and what the guest does. Everything else between admitted and started is ours, the
/// making of cage, network and process (`spawn`) included.
const BARE: [&str; 6] = ["boot", "prepare", "restore", "resume", "hello", "wake"];

/// What the dispatcher made of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was let in at once.
    Admitted,
    /// It had to wait for room.
    Queued,
    /// It was told to come back later; nothing was started.
    Refused,
    /// Neither.
    Failed,
}

/// One start.
#[derive(Serialize)]
pub struct Run {
    session_id: Option<String>,
    pub provider: Option<String>,
    pub accelerator: Option<String>,
    pub start: Option<String>,
    pub outcome: Outcome,
    /// The highest position in the queue that was seen.
    pub highest_position: Option<u32>,
    /// When a refused one should ask again.
    pub retry_after_s: Option<u64>,
    pub stages_ms: StagesMs,
    pub client_ms: ClientMs,
    pub start_stages: Vec<Stage>,
    /// From admitted to started, without what the machine itself needs.
    pub overhead_ms: Option<f64>,
    pub usage: Option<Usage>,
    /// It went well, but did not start from what was asked for.
    pub otherwise: bool,
    /// Why it does not count.
    pub failure: Option<String>,
}

impl Run {
    /// Whether its numbers are those that were asked for.
    pub fn counts(&self) -> bool {
        self.went_well() && !self.otherwise
    }

    /// Whether there was a call, whatever it started from.
    pub fn went_well(&self) -> bool {
        self.failure.is_none() && self.outcome != Outcome::Refused
    }

    fn without_session(outcome: Outcome) -> Run {
        Run {
            session_id: None,
            provider: None,
            accelerator: None,
            start: None,
            outcome,
            highest_position: None,
            retry_after_s: None,
            stages_ms: StagesMs::default(),
            client_ms: ClientMs::default(),
            start_stages: Vec::new(),
            overhead_ms: None,
            usage: None,
            otherwise: false,
            failure: None,
        }
    }

    /// A start that led nowhere.
    pub fn failed(failure: String) -> Run {
        Run { failure: Some(failure), ..Run::without_session(Outcome::Failed) }
    }

    fn of(placed: Placed, from: &str) -> Run {
        let failure = failure(&placed);
        let Placed { session, client_ms, highest_position, .. } = placed;
        let outcome = match (&failure, highest_position) {
            (Some(_), _) => Outcome::Failed,
            (None, Some(_)) => Outcome::Queued,
            (None, None) => Outcome::Admitted,
        };
        Run {
            overhead_ms: overhead_ms(&session),
            otherwise: failure.is_none() && session.start.as_deref() != Some(from),
            session_id: Some(session.id),
            provider: Some(session.provider),
            accelerator: session.accelerator,
            start: session.start,
            outcome,
            highest_position,
            retry_after_s: None,
            stages_ms: session.stages_ms,
            client_ms,
            start_stages: session.start_stages,
            usage: session.usage,
            failure,
        }
    }
}

/// Places one call. An error only where the user wants to stop.
pub async fn one(client: &ApiClient, plan: Plan, from: String) -> Result<Run, CliError> {
    match caller::place(client, &plan, &Progress::silent()).await {
        Ok(Placed { trouble: Some(CliError::Interrupted), .. }) | Err(CliError::Interrupted) => {
            Err(CliError::Interrupted)
        }
        Ok(placed) => Ok(Run::of(placed, &from)),
        Err(CliError::Api(ApiError::Refused { retry_after: Some(seconds), .. })) => {
            let retry_after_s = Some(seconds);
            Ok(Run { retry_after_s, ..Run::without_session(Outcome::Refused) })
        }
        Err(error) => Ok(Run::failed(error.to_string())),
    }
}

fn failure(placed: &Placed) -> Option<String> {
    if let Some(trouble) = &placed.trouble {
        return Some(reason(trouble));
    }
    placed.heard.first_sound.is_none().then(|| {
        let who = if placed.cut_off { "the bot hung up" } else { "the time was up" };
        format!("no sound was heard before {who}")
    })
}

/// The same trouble in the same words, so that it can be counted: no session id.
fn reason(trouble: &CliError) -> String {
    match trouble {
        CliError::SessionFailed { reason, .. } => format!("{}: {}", reason.code, reason.detail),
        other => other.to_string(),
    }
}

fn overhead_ms(session: &Session) -> Option<f64> {
    let stages = &session.stages_ms;
    let took = stages.started? - stages.admitted.unwrap_or(0.0);
    let bare = session.start_stages.iter().filter(|stage| BARE.contains(&stage.name.as_str()));
    Some(((took - bare.map(|stage| stage.ms).sum::<f64>()) * 100.0).round() / 100.0)
}
