//! The dispatcher: HTTP API, store, driver.
//!
//! `api` → `driver` → {`store`, machines, transports}. Requests record what is wanted, drivers
//! do what is owed, and the store is what they meet over. Start with `driver`.

pub mod api;
pub mod claims;
pub mod clock;
pub mod config;
pub mod drain;
pub mod driver;
mod history;
pub mod keys;
pub mod logs;
pub mod media;
pub mod metrics;
mod outside;
pub mod owner;
pub mod plane;
pub mod planted;
mod prepare;
mod proxy;
pub mod queue;
mod random;
pub mod replica;
pub mod rollout;
pub mod serve;
mod signalling;
pub mod store;
pub mod sweep;
pub mod tasks;
mod usage;

pub use clock::{now, rfc3339 as clock_text};
