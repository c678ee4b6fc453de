//! The dispatcher through its HTTP API: the real router, a real SQLite file, a fake provider.
#![allow(clippy::unwrap_used)]

mod app;
mod arrivals;
mod bad_input;
mod config;
mod costs;
mod crash_policy;
mod cut_off;
mod drain;
mod duties;
mod history;
mod left_behind;
mod lifecycle;
mod media;
mod moody;
mod openapi;
mod queue;
mod readiness;
mod replicas;
mod restart;
mod rollout;
mod rooms;
mod signalling;
mod silent;
mod start;
mod still;
mod store;
mod sweep;
mod usage;
mod warning;
mod watch;
