//! Waiting for a machine's state (fly.md section 3.2).
//!
//! One call waits at most a minute, so [`Client::wait_until`] waits in slices up to the
//! caller's own deadline, and looks at the machine after each slice that came to nothing.

use std::time::Duration;

use reqwest::Method;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Client;
use crate::wire::{State, WaitAnswer};
use crate::{Action, Error, ErrorKind, limits};

/// Pause between two calls of one wait: the rate limit is one a second for each machine.
const PAUSE: Duration = Duration::from_secs(1);
/// What a call may take longer than the slice that it asked for.
const MARGIN: Duration = Duration::from_secs(10);

/// What one wait call waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// One of these is enough; `started` when empty. `settled` is a word of its own here.
    pub states: Vec<State>,
    /// Of this version only. The docs want it for `stopped`.
    pub version: Option<String>,
    /// Only what comes after this event.
    pub from_event_id: Option<String>,
    /// Sent in whole seconds, within [`limits::WAIT`].
    pub timeout: Option<Duration>,
}

impl Wait {
    /// For one of `states`, of any version.
    pub fn for_any(states: impl IntoIterator<Item = State>) -> Wait {
        Wait { states: states.into_iter().collect(), ..Wait::default() }
    }
}

/// A state that was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Which one.
    pub state: State,
    /// The version that is in it, if the answer says so.
    pub version: Option<String>,
}

impl Client {
    /// One wait call, as it is. Not reached in its time: [`ErrorKind::Timeout`].
    pub async fn wait(
        &self,
        app: &str,
        id: &str,
        wait: &Wait,
        limit: Duration,
    ) -> Result<WaitAnswer, Error> {
        let mut call = self.on(Action::Wait, Method::GET, app, id, &["wait"]);
        for state in &wait.states {
            // Repeated, as fly-go does it.
            call = call.query("state", state.as_str());
        }
        if let Some(version) = &wait.version {
            call = call.query("version", version);
        }
        if let Some(event) = &wait.from_event_id {
            call = call.query("from_event_id", event);
        }
        if let Some(timeout) = wait.timeout {
            call = call.query("timeout", &seconds(timeout).to_string());
        }
        self.read(call, limit).await
    }

    /// Waits until a machine is in one of `wait.states`, at most until `deadline`.
    ///
    /// Ask for `failed` and `destroyed` beside what is wanted, so that an end is seen at once.
    /// Slices that come to nothing, 5xx, 429 and lost answers are part of the waiting; what
    /// ends it is a state, the deadline ([`ErrorKind::Timeout`]), or an error that says that
    /// waiting is no use: not found (a machine with `auto_destroy` whose bot ended at once is
    /// gone before it is seen), no right, no sense.
    pub async fn wait_until(
        &self,
        app: &str,
        id: &str,
        wait: &Wait,
        deadline: Instant,
    ) -> Result<Reached, Error> {
        let mut wait = wait.clone();
        if wait.states.is_empty() {
            wait.states.push(State::Started);
        }
        let mut last = None;
        loop {
            let began = Instant::now();
            let Some(left) = deadline.checked_duration_since(began).filter(|left| !left.is_zero())
            else {
                return Err(too_late(last));
            };
            wait.timeout = Some(left.min(limits::WAIT.1));
            let limit = left.min(limits::WAIT.1 + MARGIN);
            let error = match timeout_at(deadline, self.wait(app, id, &wait, limit)).await {
                Err(_) => return Err(too_late(last)),
                Ok(Ok(WaitAnswer { state: Some(state), version, .. })) => {
                    return Ok(Reached { state, version });
                }
                // An older server says only "ok"; with one state there is no doubt which.
                Ok(Ok(answer)) if wait.states.len() == 1 => {
                    return Ok(Reached { state: wait.states.remove(0), version: answer.version });
                }
                Ok(Ok(_)) => None,
                Ok(Err(error)) if goes_on(&error) => Some(error),
                Ok(Err(error)) => return Err(error),
            };
            if matches!(&error, Some(Error { kind: ErrorKind::Replaced, .. })) {
                // The version that was meant is no more; its successor is the machine now.
                wait.version = None;
            }
            match timeout_at(deadline, self.get(app, id, left)).await {
                Ok(Ok(machine)) => {
                    if let Some(state) = machine.state.filter(|state| wait.states.contains(state)) {
                        let version = machine.version.or(machine.instance_id);
                        if wait.version.is_none() || wait.version == version {
                            return Ok(Reached { state, version });
                        }
                    }
                }
                Ok(Err(other)) if !goes_on(&other) => return Err(other),
                Ok(Err(_)) | Err(_) => {}
            }
            last = error.or(last);
            sleep_until((began + PAUSE).min(deadline)).await;
        }
    }
}

/// Whether waiting may still come to something.
fn goes_on(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::Timeout { .. }
            | ErrorKind::RateLimited { .. }
            | ErrorKind::Replaced
            | ErrorKind::Server
            | ErrorKind::NotSent
            | ErrorKind::AnswerLost
    )
}

/// The deadline has passed. What the last call said is kept, as the best that is known.
fn too_late(last: Option<Error>) -> Error {
    match last {
        Some(Error {
            kind: ErrorKind::Timeout { currently }, text, status, request_id, ..
        }) => {
            let error = Error::new(Action::Wait, ErrorKind::Timeout { currently }, text);
            match status {
                Some(status) => error.answered(status, request_id.as_deref()),
                None => error,
            }
        }
        Some(last) => {
            let text = format!("not reached in time; the last call said: {}", last.text);
            Error::new(Action::Wait, ErrorKind::Timeout { currently: None }, text)
        }
        None => {
            let text = "not reached in time";
            Error::new(Action::Wait, ErrorKind::Timeout { currently: None }, text)
        }
    }
}

/// Whole seconds, upwards, within what the API takes: anything else is a 400.
fn seconds(timeout: Duration) -> u64 {
    let whole = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
    whole.clamp(limits::WAIT.0.as_secs(), limits::WAIT.1.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_whole_and_within_the_limits() {
        for (millis, expected) in
            [(0, 1), (200, 1), (1000, 1), (1001, 2), (59_500, 60), (90_000, 60)]
        {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
    }
}
