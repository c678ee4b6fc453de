//! Refusals, with the texts as they are known (fly.md sections 3, 5, 9).
//!
//! Where a text is not known, its sentence is ours; `docs/fly-api.md` lists those.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use callbox_fly::wire::{ErrorBody, State};

/// A refused call.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub status: u16,
    pub body: ErrorBody,
}

impl Refusal {
    pub fn new(status: u16, error: impl Into<String>) -> Refusal {
        Refusal { status, body: ErrorBody::text(error) }
    }

    pub fn coded(status: u16, error: impl Into<String>, code: &str) -> Refusal {
        Refusal { status, body: ErrorBody::coded(error, code) }
    }

    /// Our sentence, where Fly's is not known.
    pub fn invalid(what: impl std::fmt::Display) -> Refusal {
        Refusal::new(400, format!("invalid_argument: {what}"))
    }

    pub fn no_token() -> Refusal {
        Refusal::new(401, "invalid token")
    }

    pub fn not_yours() -> Refusal {
        Refusal::new(403, "unauthorized")
    }

    pub fn no_app() -> Refusal {
        Refusal::new(404, "app not found")
    }

    pub fn no_machine() -> Refusal {
        Refusal::new(404, "machine not found")
    }

    pub fn app_taken() -> Refusal {
        Refusal::coded(422, "Validation failed: Name has already been taken", "name_taken")
    }

    pub fn name_taken(id: &str, name: &str) -> Refusal {
        Refusal::new(
            409,
            format!(
                "already_exists: unique machine name violation, machine ID {id} already exists \
                 with name \"{name}\""
            ),
        )
    }

    pub fn rate_limited() -> Refusal {
        Refusal::new(429, "resource_exhausted: rate limit exceeded")
    }

    pub fn machine_limit() -> Refusal {
        let text = "Your organization has reached its machine limit. Please contact billing@fly.io";
        Refusal::new(422, text)
    }

    pub fn no_capacity() -> Refusal {
        Refusal::coded(422, "could not find a candidate host", "insufficient_capacity")
    }

    pub fn no_capacity_conflict() -> Refusal {
        Refusal::new(409, "aborted: no capacity")
    }

    pub fn no_memory() -> Refusal {
        let text = "aborted: insufficient resources available to fulfill request: insufficient \
                    memory available to fulfill request";
        Refusal::new(409, text)
    }

    pub fn no_room_on_host() -> Refusal {
        let text = "aborted: could not reserve resource for machine: insufficient memory \
                    available to fulfill request on the current host";
        Refusal::new(409, text)
    }

    pub fn no_address() -> Refusal {
        Refusal::new(409, "aborted: insufficient IPs available to fulfill request")
    }

    pub fn host_frozen() -> Refusal {
        // The text is known, the status is not.
        Refusal::new(409, "deploys to this host are temporarily disabled")
    }

    pub fn quota(organization: &str, used_mb: u64, region: &str) -> Refusal {
        Refusal::new(
            403,
            format!(
                "organization \"{organization}\" is using {used_mb} MB of memory in {region} \
                 which is over the allowed quota. please consider other regions"
            ),
        )
    }

    pub fn image_missing(image: &str) -> Refusal {
        Refusal::new(
            400,
            format!(
                "failed to get manifest {image}: request failed: not found [http 404]: \
                 {{\"errors\":[{{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest \
                 unknown\"}}]}}"
            ),
        )
    }

    pub fn lease_held(id: &str, owner: &str, until: &str) -> Refusal {
        let body = ErrorBody {
            status: Some("error".into()),
            message: Some(format!(
                "machine ID {id} lease currently held by {owner}, expires at {until}"
            )),
            ..ErrorBody::default()
        };
        Refusal { status: 409, body }
    }

    pub fn concurrent() -> Refusal {
        Refusal::new(409, "aborted: machine update failed due to concurrent update")
    }

    /// A start that the state does not allow.
    pub fn cannot_start(state: &State) -> Refusal {
        Refusal::new(
            412,
            match state {
                State::Replacing | State::Updating => {
                    "failed_precondition: machine getting replaced, refusing to start".to_owned()
                }
                State::Started | State::Starting | State::Restarting => {
                    "failed_precondition: machine still active, refusing to start".to_owned()
                }
                other => format!(
                    "failed_precondition: unable to start machine from current state: '{other}'"
                ),
            },
        )
    }

    /// Another call that the state does not allow; the sentence is made after that of start.
    pub fn cannot(verb: &str, state: &State) -> Refusal {
        Refusal::new(
            412,
            format!("failed_precondition: unable to {verb} machine from current state: '{state}'"),
        )
    }

    pub fn still_running() -> Refusal {
        let text = "failed_precondition: unable to destroy machine, not currently stopped, \
                    suspended, failed or created";
        Refusal::new(412, text)
    }

    pub fn wait_range() -> Refusal {
        let text = "invalid_argument: invalid WaitMachineRequest.Timeout: value must be inside \
                    range [1s, 1m0s]";
        Refusal::new(400, text)
    }

    pub fn wait_over(wanted: &str, state: &State) -> Refusal {
        Refusal::new(
            408,
            format!(
                "deadline_exceeded: machine failed to reach desired state, {wanted}, currently \
                 {state}"
            ),
        )
    }

    pub fn replaced() -> Refusal {
        // "currently replaced" is known, the rest and the status are not.
        Refusal::new(412, "failed_precondition: machine version is currently replaced")
    }

    pub fn version_mismatch() -> Refusal {
        Refusal::new(412, "failed_precondition: machine version mismatch")
    }

    pub fn host_unreachable() -> Refusal {
        Refusal::new(503, "unavailable: host is unreachable")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.body)).into_response()
    }
}
