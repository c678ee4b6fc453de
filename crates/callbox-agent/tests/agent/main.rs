//! The agent as a process, spoken to over its real protocol, running real bots.
#![allow(clippy::unwrap_used, missing_docs)]

mod bots;
mod house;
#[cfg(feature = "join")]
mod join;
mod prepare;
mod session;
mod tunnel;
mod wake;
mod warn;
