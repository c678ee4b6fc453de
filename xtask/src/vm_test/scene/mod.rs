//! What tests of dying dispatchers share: a data directory and the dispatchers that follow each
//! other in it, clients that do not give up, and the host on which something may be left.

pub mod api;
pub mod caller;
pub mod dispatcher;
pub mod echo;
pub mod host;
pub mod watch;
