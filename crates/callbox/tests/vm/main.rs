//! The program as its users run it: `callbox serve`, real machines, real bots, real calls.
//!
//! Needs what plain `cargo test` does not have, so it is built with `--features vm-tests` only.
//! `cargo xtask test vm` builds that and sets
//!
//! * `CALLBOX_TEST_DATA_DIR`: a data directory with the images `parrot` and `tiny`. Only images,
//!   kernel, templates and the verdict on KVM are shared; each test has a data directory of its
//!   own beside, and leaves nothing in it.
//! * `CALLBOX_AGENT`: the static guest agent.
//!
//! Every dispatcher here is ended by its test, which then looks for what was left behind
//! (`support/left.rs`). Waits are for levels, with deadlines wide enough for software emulation on
//! a busy host.
#![allow(clippy::unwrap_used)]

mod calls;
mod clock;
mod crash_policy;
mod crashes;
mod deadline;
mod fly;
mod lost;
mod operator;
mod refusals;
mod reserve;
mod restarts;
mod rollout;
mod room;
mod rude_clients;
mod secrets;
mod support;
mod templates;
mod trouble;
