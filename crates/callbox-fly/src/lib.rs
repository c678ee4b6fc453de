//! Fly's Machines API: its words on the wire, a client, and what its errors mean.
//!
//! Knows nothing of sessions, and depends on no other crate of callbox.
//! "fly.md" in comments is the project's fact sheet about this API, with the source and the
//! certainty of each fact; what follows from it for us stands in `docs/fly-api.md`.
//!
//! * [`wire`]: requests and answers, used by the client and by whoever serves this API.
//! * [`Client`]: one method per call, each with the caller's own time limit.
//! * [`Error`]: what went wrong ([`ErrorKind`]) and whether it [`Happened`] all the same.
//! * [`limits`]: the documented limits, as data.
//! * [`Prices`]: what machines cost.
//!
//! A provider's half answer is ordinary input: what can be absent is optional, what cannot be
//! read where we can do without it is absent, and the rest is a classified error.

mod action;
mod classify;
mod client;
mod error;
pub mod limits;
mod prices;
mod tls;
mod token;
pub mod wire;

pub use action::Action;
pub use client::{
    BASE_URL, Client, ClientError, ListFilter, PRIVATE_BASE_URL, Reached, Stop, Wait,
};
pub use error::{CapacityScope, Error, ErrorKind, Happened, Thing};
pub use prices::Prices;
pub use token::Token;
