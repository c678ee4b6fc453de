//! Real namespaces, taps and rules, on a host that is a namespace itself: nothing of the host
//! that runs the test is touched. Guests are kernels' network stacks without machines.

#![allow(clippy::unwrap_used)]

mod leaks;
mod machine;
mod place;
mod rootless;
mod stage;
#[path = "../vm/support.rs"]
mod support;
mod walls;
