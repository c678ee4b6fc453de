//! The stand-in for Fly: its life in paused time, the client of `callbox-fly` against it, and
//! both against the specification.
#![allow(clippy::unwrap_used)]

mod api;
mod client;
mod lies;
mod life;
mod limits;
mod random;
mod specification;
mod troubles;
