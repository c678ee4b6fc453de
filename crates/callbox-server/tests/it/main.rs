//! The dispatcher through its HTTP API: the real router, a real SQLite file, a fake provider.
#![allow(clippy::unwrap_used)]

mod app;
mod arrivals;
mod bad_input;
mod config;
mod crash_policy;
mod drain;
mod duties;
mod history;
mod lifecycle;
mod media;
mod openapi;
mod queue;
mod readiness;
mod replicas;
mod restart;
mod rollout;
mod start;
mod store;
mod sweep;
mod usage;
mod warning;
mod watch;
