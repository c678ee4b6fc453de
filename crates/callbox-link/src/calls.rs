use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use callbox_protocol::agent::{
    AgentError, Awake, Clock, Frozen, Health, Hosts, Prepare, Prepared, SessionAccepted,
    SessionData, Stop, Wake, Warning,
};
use callbox_protocol::join::Rejoin;

use crate::link::broken;
use crate::{Link, LinkError};

/// Longest answer that is read, in bytes.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Makes a wake for one machine: a new generation id, 64 bytes from this host's kernel, and
/// the time of this moment. Call it right before [`Link::wake`], never earlier.
///
/// # Panics
/// If the kernel has no randomness to give. A machine must not start then.
pub fn fresh_wake(hostname: &str) -> Wake {
    Wake {
        generation_id: random_hex(16),
        entropy: random_hex(64),
        unix_ns: unix_ns().to_string(),
        hostname: hostname.to_owned(),
    }
}

fn unix_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// `bytes` random bytes as hex.
pub(crate) fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).expect("the kernel gives random bytes");
    hex::encode(random)
}

/// Each call fails with [`LinkError::Agent`] if the agent refuses it, [`LinkError::Closed`] if
/// the connection goes away, and [`LinkError::Protocol`] or [`LinkError::TooLarge`] if the
/// answer makes no sense.
impl Link {
    /// How the agent does.
    ///
    /// # Errors
    /// As all calls.
    pub async fn health(&self) -> Result<Health, LinkError> {
        self.call("health", Method::GET, None::<&()>).await
    }

    /// Has the machine do everything about the bot that needs no session.
    ///
    /// # Errors
    /// As all calls; the agent's codes are `bot-not-found`, `bot-exited`, `not-ready`.
    pub async fn prepare(&self, prepare: &Prepare) -> Result<Prepared, LinkError> {
        self.call("prepare", Method::POST, Some(prepare)).await
    }

    /// Tells the agent that the machine is about to become a template. The agent closes the
    /// connection after its answer.
    ///
    /// # Errors
    /// As all calls; `established-connections` if something inside holds a connection open.
    pub async fn freeze(&self) -> Result<Frozen, LinkError> {
        self.call("freeze", Method::POST, None::<&()>).await
    }

    /// Makes the machine itself. Nothing secret may be sent before this succeeds.
    ///
    /// # Errors
    /// [`LinkError::NotReseeded`] unless the agent echoes the generation id, reseeded the
    /// kernel, set the clock, renewed the names, and the bot did not fail to reseed. Otherwise
    /// as all calls.
    pub async fn wake(&self, wake: &Wake) -> Result<Awake, LinkError> {
        let awake: Awake = match self.call("wake", Method::POST, Some(wake)).await {
            Err(LinkError::Agent { error, .. }) if error.code == "not-reseeded" => {
                return Err(LinkError::NotReseeded { detail: error.message });
            }
            other => other?,
        };
        check_awake(wake, &awake)?;
        let late = awake.unix_ns.as_ref().map(|told| lateness(&wake.unix_ns, told, unix_ns()));
        tracing::debug!(took_us = ?awake.took_us, reseeded = ?awake.reseeded, ?late, "awake");
        // Agents that do not tell the time cannot set it again either.
        if late.is_some_and(|late| late.is_none_or(|late| late > CLOCK_LATE)) {
            self.set_clock().await?;
        }
        Ok(awake)
    }

    /// Sets the machine's clock again, until it is known to be right or does not get better.
    async fn set_clock(&self) -> Result<(), LinkError> {
        let mut late = None;
        for _ in 0..CLOCK_TRIES {
            let sent = Clock { unix_ns: unix_ns().to_string() };
            let told: Clock = self.call("clock", Method::POST, Some(&sent)).await?;
            late = lateness(&sent.unix_ns, &told.unix_ns, unix_ns());
            tracing::debug!(?late, "the clock was set again");
            if late.is_some_and(|late| late <= CLOCK_TOO_LATE) {
                break;
            }
        }
        let wrong = "the clock is not what it was set to".to_owned();
        late.map(drop).ok_or(LinkError::NotReseeded { detail: wrong })
    }

    /// Tells the machine the addresses of names.
    ///
    /// # Errors
    /// As all calls.
    pub async fn hosts(&self, hosts: &Hosts) -> Result<(), LinkError> {
        let _: IgnoredAny = self.call("hosts", Method::POST, Some(hosts)).await?;
        Ok(())
    }

    /// Tells a machine that dialled what opens its next connection.
    ///
    /// # Errors
    /// As all calls.
    pub async fn rejoin(&self, rejoin: &Rejoin) -> Result<(), LinkError> {
        let _: IgnoredAny = self.call("rejoin", Method::POST, Some(rejoin)).await?;
        Ok(())
    }

    /// Hands over the session's data. Readiness comes as an event.
    ///
    /// # Errors
    /// As all calls.
    pub async fn session(&self, session: &SessionData) -> Result<SessionAccepted, LinkError> {
        let accepted: SessionAccepted = self.call("session", Method::POST, Some(session)).await?;
        if accepted.session_id != session.session_id {
            return Err(LinkError::Protocol {
                call: "session",
                what: format!("it accepted another session, {:?}", accepted.session_id),
            });
        }
        Ok(accepted)
    }

    /// Tells the bot that its session is about to end. What the bot makes of it is its own
    /// business: success means that the agent did its part.
    ///
    /// The agent gives the bot five seconds to answer, so nobody should wait for this who has
    /// something better to do.
    ///
    /// # Errors
    /// As all calls; `wrong-phase` when there is no session, `bot-exited` when it is over.
    pub async fn warn(&self, warning: &Warning) -> Result<(), LinkError> {
        let _: IgnoredAny = self.call("warn", Method::POST, Some(warning)).await?;
        Ok(())
    }

    /// Ends the bot (SIGTERM, after `grace` SIGKILL) and then the machine.
    ///
    /// # Errors
    /// As all calls. [`LinkError::Closed`] can mean that the machine ended before it answered.
    pub async fn stop(&self, grace: Duration) -> Result<(), LinkError> {
        let stop = Stop { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) };
        let _: IgnoredAny = self.call("stop", Method::POST, Some(&stop)).await?;
        Ok(())
    }

    async fn call<A: DeserializeOwned>(
        &self,
        call: &'static str,
        method: Method,
        body: Option<&impl Serialize>,
    ) -> Result<A, LinkError> {
        let request = request(call, method, body)?;
        let response = accepted(call, self.send(call, request).await?).await?;
        let body = read_body(call, response.into_body()).await?;
        serde_json::from_slice(&body).map_err(|error| LinkError::Protocol {
            call,
            // serde's message can quote the answer, and an answer can hold anything.
            what: format!(
                "its answer is not the JSON that was expected (column {})",
                error.column()
            ),
        })
    }
}

fn request(
    call: &'static str,
    method: Method,
    body: Option<&impl Serialize>,
) -> Result<Request<Full<Bytes>>, LinkError> {
    let unsendable = |error: &dyn std::fmt::Display| LinkError::Protocol {
        call,
        what: format!("the request cannot be written: {error}"),
    };
    let body = match body {
        Some(body) => serde_json::to_vec(body).map_err(|error| unsendable(&error))?,
        None => Vec::new(),
    };
    Request::builder()
        .method(method)
        .uri(format!("http://agent/v1/{call}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(body))
        .map_err(|error| unsendable(&error))
}

/// Passes 2xx on and turns everything else into the agent's refusal.
pub(crate) async fn accepted(
    call: &'static str,
    response: Response<Incoming>,
) -> Result<Response<Incoming>, LinkError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = read_body(call, response.into_body()).await?;
    let error: AgentError = serde_json::from_slice(&body).map_err(|_| LinkError::Protocol {
        call,
        what: format!("it answered {status} without saying why"),
    })?;
    Err(LinkError::Agent { call, status: status.as_u16(), error })
}

async fn read_body(call: &'static str, body: Incoming) -> Result<Bytes, LinkError> {
    match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(LinkError::TooLarge { call, limit: MAX_ANSWER_BYTES })
        }
        Err(error) => Err(match error.downcast_ref::<hyper::Error>() {
            Some(error) => broken(call, error),
            None => LinkError::Closed,
        }),
    }
}

/// Fails closed: whatever is not proven is missing.
fn check_awake(wake: &Wake, awake: &Awake) -> Result<(), LinkError> {
    let missing = if awake.generation_id != wake.generation_id {
        "the agent answered for another generation"
    } else if !awake.kernel_reseeded {
        "the kernel's generator was not reseeded"
    } else if !awake.clock_set {
        "the clock was not set"
    } else if awake.names_renewed == Some(false) {
        "the machine has its template's names"
    } else if awake.bot_reseeded == Some(false) {
        "the bot did not reseed"
    } else {
        return Ok(());
    };
    Err(LinkError::NotReseeded { detail: missing.to_owned() })
}

/// From here on it is worth another call to have a better clock: a few milliseconds.
const CLOCK_LATE: Duration = Duration::from_millis(20);
/// A clock that was set again may be so late before it is set once more: 50 ms are promised.
const CLOCK_TOO_LATE: Duration = Duration::from_millis(40);
/// A host that is busy enough is late every time, and its caller waits.
const CLOCK_TRIES: usize = 3;
/// How far this host's own clock may be moved during a call, by whoever keeps it.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// How late the machine's clock is at most, if it was `told` when it answered a call that was
/// `sent` at this time and whose answer is there `now`. None if it does not lie between the two:
/// then it was not set, or this host's own was.
fn lateness(sent: &str, told: &str, now: u128) -> Option<Duration> {
    let (sent, told) = (sent.parse::<u128>().ok()?, told.parse::<u128>().ok()?);
    let tolerance = CLOCK_TOLERANCE.as_nanos();
    let possible = told.checked_add(tolerance)? >= sent && told <= now.checked_add(tolerance)?;
    let late = u64::try_from(now.saturating_sub(told)).ok()?;
    possible.then(|| Duration::from_nanos(late))
}
