//! Which error an answer is: by its status, its code and its text (fly.md sections 3.2, 5, 9).
//!
//! Fly's own client trusts the code where there is one, and reads the text of 409s; third
//! parties read more. Texts are matched by their shortest certain part, because their ends vary.

use std::time::Duration;

use crate::wire::{ErrorBody, State};
use crate::{Action, CapacityScope, Error, ErrorKind, Thing};

/// Whoever is asked to rest for longer asks again all the same: what stands there may be anything.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The error that an answer with a status of 300 or more is.
pub fn classify(
    action: Action,
    status: u16,
    retry_after: Option<&str>,
    request_id: Option<&str>,
    body: &[u8],
) -> Error {
    let body = ErrorBody::read(body);
    let said = body.said();
    let kind = kind(status, body.status.as_deref(), said, retry_after);
    let text = match (said, body.status.as_deref()) {
        ("", Some(code)) => code.to_owned(),
        ("", None) => "an error without a text".to_owned(),
        (said, _) => said.to_owned(),
    };
    Error::new(action, kind, text).answered(status, request_id)
}

fn kind(status: u16, code: Option<&str>, said: &str, retry_after: Option<&str>) -> ErrorKind {
    if let Some(kind) = code.and_then(|code| by_code(status, code)) {
        return kind;
    }
    let text = said.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    if status == 429 || has("rate limit exceeded") {
        let retry_after = retry_after.and_then(|value| value.trim().parse().ok());
        let retry_after =
            retry_after.map(|after: u64| Duration::from_secs(after).min(LONGEST_REST));
        return ErrorKind::RateLimited { retry_after };
    }
    if has("currently replaced") {
        return ErrorKind::Replaced;
    }
    match status {
        401 => ErrorKind::Unauthorized,
        404 => ErrorKind::NotFound { thing: thing(&text) },
        408 | 504 => ErrorKind::Timeout { currently: currently(&text) },
        500.. => ErrorKind::Server,
        _ if has("unique machine name violation") => ErrorKind::NameTaken {
            machine_id: between(said, "machine ID ", " already exists").map(str::to_owned),
        },
        _ if has("name has already been taken") => ErrorKind::NameTaken { machine_id: None },
        _ if has("over the allowed quota") => {
            ErrorKind::Quota { region: between(said, "of memory in ", " ").map(str::to_owned) }
        }
        _ if has("machine limit") || has("please add a payment method") => ErrorKind::MachineLimit,
        _ if has("manifest_unknown") || has("failed to get manifest") => ErrorKind::ImageMissing,
        400 | 409 | 412 | 422 if let Some(scope) = capacity(&text) => ErrorKind::Capacity { scope },
        409 if has("lease currently held") || has("lease is held") => ErrorKind::LeaseHeld,
        409 if has("concurrent update") => ErrorKind::ConcurrentUpdate,
        409 | 412 if let Some(state) = wrong_state(&text) => ErrorKind::WrongState { state },
        403 => ErrorKind::Forbidden,
        409 => ErrorKind::Conflict,
        412 if has("version") => ErrorKind::VersionMismatch,
        412 => ErrorKind::WrongState { state: None },
        400 | 422 => ErrorKind::Invalid,
        _ => ErrorKind::Other,
    }
}

fn by_code(status: u16, code: &str) -> Option<ErrorKind> {
    match code {
        "insufficient_capacity" => Some(ErrorKind::Capacity { scope: CapacityScope::Region }),
        "volume_placement_capacity" => Some(ErrorKind::Capacity { scope: CapacityScope::Volume }),
        // Of apps; a machine's name comes without a code, and its text names the machine.
        "name_taken" if status == 422 => Some(ErrorKind::NameTaken { machine_id: None }),
        _ => None,
    }
}

/// Which capacity is missing. The region's texts first: they are the shorter ones.
fn capacity(text: &str) -> Option<CapacityScope> {
    let has = |part: &str| text.contains(part);
    if has("no capacity") || has("could not find a candidate host") {
        Some(CapacityScope::Region)
    } else if has("existing volume id") {
        Some(CapacityScope::Volume)
    } else if has("could not reserve resource")
        || has("insufficient resources")
        || has("insufficient memory")
        || has("insufficient cpu")
        || has("insufficient ips")
        || has("deploys to this host are temporarily disabled")
    {
        Some(CapacityScope::Host)
    } else {
        None
    }
}

/// `Some` if the text is about a machine's state.
fn wrong_state(text: &str) -> Option<Option<State>> {
    if let Some(state) = between(text, "from current state: '", "'") {
        return Some(Some(State::from(state)));
    }
    if text.contains("getting replaced") {
        return Some(Some(State::Replacing));
    }
    let others = ["refusing to start", "unable to destroy machine", "unable to start machine"];
    others.iter().any(|other| text.contains(other)).then_some(None)
}

fn currently(text: &str) -> Option<State> {
    let (_, state) = text.rsplit_once("currently ")?;
    let end = state.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(state.len());
    (end > 0).then(|| State::from(&state[..end]))
}

fn thing(text: &str) -> Thing {
    if text.contains("app") && text.contains("not found") && !text.contains("machine not found") {
        Thing::App
    } else if text.contains("machine") {
        Thing::Machine
    } else {
        Thing::Unsaid
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    let (found, _) = rest.split_once(after)?;
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
