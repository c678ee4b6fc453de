//! Stand-ins for providers' APIs on this host: with their states, their documented limits, and
//! troubles that can be switched on.
//!
//! With one of them the whole way of a session, client to audio, runs on a laptop, and whoever
//! writes against the real API can test what it does on its bad days. Nothing in here is the
//! provider: what is imitated, from which source, and where that is a guess, stands in
//! `docs/fly-api.md` and `docs/daily.md`.

pub mod daily;
pub mod fly;
mod serve;
