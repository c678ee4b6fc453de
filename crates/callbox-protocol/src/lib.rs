//! The words on the wire: the public API ([`api`]) the guest agent ([`agent`]), and how it
//! dials ([`join`]).
//!
//! serde types only, no logic. A change here is a promise to somebody outside:
//! the API's clients, or an agent that was frozen into a template earlier.
//! Agents tolerate unknown fields (the dispatcher may be newer than the template);
//! everything that comes *from* a machine is untrusted input to the dispatcher.

pub mod agent;
pub mod api;
pub mod join;
