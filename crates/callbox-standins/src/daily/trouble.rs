//! Troubles that can be switched on while the stand-in runs.

use serde::{Deserialize, Serialize};

/// One trouble.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Trouble {
    /// On these calls alone: `POST /rooms`, `GET /rooms/:name/presence`; on all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// So often; always when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What happens.
    pub effect: Effect,
}

/// What a trouble does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The answer comes so many milliseconds late.
    Slow(u64),
    /// 429, as if too many called.
    Throttled,
    /// A 500 in Daily's words.
    ServerError(When),
    /// The connection is cut.
    Cut(When),
    /// 403.
    Forbidden,
}

/// Whether what was asked for was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// It was not.
    Before,
    /// It was.
    After,
}

impl Trouble {
    /// On these calls, so often.
    pub fn on(call: &str, effect: Effect, count: u64) -> Trouble {
        Trouble { call: Some(call.to_owned()), count: Some(count), effect }
    }
}

/// The first trouble that strikes this call, if any does.
pub(super) fn strike(troubles: &mut [Trouble], call: &str) -> Option<Effect> {
    let strikes = |trouble: &&mut Trouble| {
        trouble.call.as_deref().is_none_or(|of| of == call) && trouble.count != Some(0)
    };
    let trouble = troubles.iter_mut().find(strikes)?;
    if let Some(count) = &mut trouble.count {
        *count -= 1;
    }
    Some(trouble.effect)
}
