//! Every row of fly.md sections 5.3 and 9, and the texts of 3.2, 3.4, 5.1 and 5.2, literally.

use CapacityScope::{Host, Region, Volume};
use ErrorKind::{
    Capacity, ConcurrentUpdate, Conflict, Forbidden, ImageMissing, Invalid, LeaseHeld,
    MachineLimit, NameTaken, NotFound, Other, Quota, RateLimited, Replaced, Server, Timeout,
    Unauthorized, VersionMismatch, WrongState,
};

use super::*;
use crate::Happened;

fn rows() -> Vec<(u16, &'static str, ErrorKind)> {
    let id = |id: &str| NameTaken { machine_id: Some(id.to_owned()) };
    let state = |state: &str| WrongState { state: Some(State::from(state)) };
    let limited = || RateLimited { retry_after: None };
    vec![
        // 9: images
        (
            400,
            r#"{"error":"failed to get manifest registry.fly.io/app@sha256:ab: request failed: not found [http 404]: {\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"x\"}]}"}"#,
            ImageMissing,
        ),
        // 9: invalid
        (400, r#"{"error":"invalid_argument: unknown region xyz"}"#, Invalid),
        (422, r#"{"error":"invalid restart policy"}"#, Invalid),
        (
            400,
            r#"{"error":"invalid_argument: invalid WaitMachineRequest.Timeout: value must be inside range [1s, 1m0s]"}"#,
            Invalid,
        ),
        // 9: names
        (
            409,
            r#"{"error":"already_exists: unique machine name violation, machine ID 148e05e0c25389 already exists with name \"cb-1\""}"#,
            id("148e05e0c25389"),
        ),
        (
            422,
            r#"{"error":"Validation failed: Name has already been taken","status":"name_taken"}"#,
            NameTaken { machine_id: None },
        ),
        // 9: leases, updates
        (
            409,
            r#"{"status":"error","message":"machine ID 148e lease currently held by 5f@tokens.fly.io, expires at 2026-05-14T10:00:00Z"}"#,
            LeaseHeld,
        ),
        (
            409,
            r#"{"error":"machine ID 148e lease currently held by 5f@tokens.fly.io, expires at 2026-05-14T10:00:00Z"}"#,
            LeaseHeld,
        ),
        (
            409,
            r#"{"error":"aborted: machine update failed due to concurrent update"}"#,
            ConcurrentUpdate,
        ),
        // 9: states
        (
            412,
            r#"{"error":"failed_precondition: unable to start machine from current state: 'created'"}"#,
            state("created"),
        ),
        (
            412,
            r#"{"error":"failed_precondition: machine getting replaced, refusing to start"}"#,
            state("replacing"),
        ),
        (
            412,
            r#"{"error":"failed_precondition: machine still active, refusing to start"}"#,
            WrongState { state: None },
        ),
        // 3.4: destroy of a running one; 2022 docs showed 409
        (412, DESTROY, WrongState { state: None }),
        (409, DESTROY, WrongState { state: None }),
        (412, r#"{"error":"machine version mismatch"}"#, VersionMismatch),
        // 3.2: wait
        (
            408,
            r#"{"error":"deadline_exceeded: machine failed to reach desired state, started, currently stopped"}"#,
            Timeout { currently: Some(State::Stopped) },
        ),
        (408, "", Timeout { currently: None }),
        (504, "<html>Gateway Timeout</html>", Timeout { currently: None }),
        (409, r#"{"error":"aborted: machine is currently replaced"}"#, Replaced),
        (404, r#"{"error":"machine version currently replaced"}"#, Replaced),
        // 9: not found, auth
        (404, r#"{"error":"app not found"}"#, NotFound { thing: Thing::App }),
        (404, r#"{"error":"machine not found"}"#, NotFound { thing: Thing::Machine }),
        (404, "404 page not found", NotFound { thing: Thing::Unsaid }),
        (401, r#"{"error":"invalid token"}"#, Unauthorized),
        (403, r#"{"error":"unauthorized"}"#, Forbidden),
        // 9: host frozen
        (
            409,
            r#"{"error":"deploys to this host are temporarily disabled"}"#,
            Capacity { scope: Host },
        ),
        // 5.1
        (429, r#"{"error":"resource_exhausted: rate limit exceeded"}"#, limited()),
        (502, r#"[PM01] machines API returned an error: "rate limit exceeded""#, limited()),
        (429, "", limited()),
        // 5.2
        (
            422,
            r#"{"error":"Your organization has reached its machine limit. Please contact billing@fly.io"}"#,
            MachineLimit,
        ),
        (
            422,
            r#"{"error":"To create more than 1 machine per app please add a payment method"}"#,
            MachineLimit,
        ),
        (
            403,
            r#"{"error":"organization \"Kilo\" is using 1970176 MB of memory in dfw which is over the allowed quota. please consider other regions"}"#,
            Quota { region: Some("dfw".to_owned()) },
        ),
        // 5.3
        (
            422,
            r#"{"error":"could not find a candidate host","status":"insufficient_capacity"}"#,
            Capacity { scope: Region },
        ),
        (409, r#"{"error":"aborted: no capacity"}"#, Capacity { scope: Region }),
        (
            409,
            r#"{"error":"aborted: insufficient resources available to fulfill request: insufficient memory available to fulfill request"}"#,
            Capacity { scope: Host },
        ),
        (
            409,
            r#"{"error":"aborted: could not reserve resource for machine: insufficient CPUs available to fulfill request on the current host"}"#,
            Capacity { scope: Host },
        ),
        (
            409,
            r#"{"error":"aborted: could not reserve resource for machine: insufficient memory available to fulfill request on the current host"}"#,
            Capacity { scope: Host },
        ),
        (
            409,
            r#"{"error":"aborted: insufficient IPs available to fulfill request"}"#,
            Capacity { scope: Host },
        ),
        (
            412,
            r#"{"error":"insufficient resources to create new machine with existing volume id 'vol_1'","status":"volume_placement_capacity"}"#,
            Capacity { scope: Volume },
        ),
        (400, r#"{"error":"no capacity"}"#, Capacity { scope: Region }),
        (
            503,
            r#"{"error":"no room","status":"insufficient_capacity"}"#,
            Capacity { scope: Region },
        ),
        // FLAME: 412 no capacity
        (412, r#"{"error":"no capacity"}"#, Capacity { scope: Region }),
        // The rest
        (409, r#"{"error":"something else"}"#, Conflict),
        (500, r#"{"error":"internal: oops"}"#, Server),
        (502, "bad gateway", Server),
        (503, "", Server),
        (418, r#"{"error":"teapot"}"#, Other),
        (301, "", Other),
    ]
}

const DESTROY: &str = r#"{"error":"failed_precondition: unable to destroy machine, not currently stopped, suspended, failed or created"}"#;

#[test]
fn every_known_text_has_its_meaning() {
    for (status, body, kind) in rows() {
        let error = classify(Action::Create, status, None, Some("01-iad"), body.as_bytes());
        assert_eq!(error.kind, kind, "{status} {body}");
        assert_eq!(error.status, Some(status));
        assert_eq!(error.request_id.as_deref(), Some("01-iad"));
    }
}

#[test]
fn what_may_have_happened_is_said() {
    for (status, body, _) in rows() {
        let error = classify(Action::Create, status, None, None, body.as_bytes());
        let maybe = status == 408 || status >= 500;
        let expected = if maybe { Happened::Maybe } else { Happened::No };
        assert_eq!(error.happened(), expected, "{status} {body}");
        let asked = classify(Action::Get, status, None, None, body.as_bytes());
        assert_eq!(asked.happened(), Happened::No, "asking changes nothing");
    }
}

#[test]
fn a_retry_after_is_read_if_there_is_one() {
    let error = classify(Action::Create, 429, Some("7"), None, b"");
    assert_eq!(error.kind, RateLimited { retry_after: Some(Duration::from_secs(7)) });
    let error = classify(Action::Create, 429, Some("Wed, 21 Oct"), None, b"");
    assert_eq!(error.kind, RateLimited { retry_after: None });
}

#[test]
fn texts_are_kept_and_bounded() {
    let error = classify(Action::Stop, 500, None, Some("r1"), br#"{"error":"internal: oops"}"#);
    assert_eq!(error.text, "internal: oops");
    assert_eq!(error.to_string(), "cannot stop: internal: oops (HTTP 500, fly-request-id r1)",);
    let long = "ä".repeat(10_000);
    let error = classify(Action::Stop, 500, None, None, long.as_bytes());
    assert!(error.text.len() < 2100);
}

#[test]
fn nothing_that_comes_panics() {
    for body in [&b"\xff\xfe"[..], b"[]", b"null", b"{}", b"{\"error\":5}", b"\"currently \""] {
        for status in [200, 300, 400, 404, 408, 409, 412, 422, 500, 999] {
            let _ = classify(Action::Create, status, None, None, body);
        }
    }
}
