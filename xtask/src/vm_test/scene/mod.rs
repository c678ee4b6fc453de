//! What tests of dying dispatchers share: a data directory and the dispatchers that follow each
//! other in it, clients that do not give up, and the host on which something may be left.

use clap::ValueEnum;

use crate::postgres::Postgres;

pub mod api;
pub mod caller;
pub mod dispatcher;
pub mod echo;
pub mod host;
pub mod settle;
pub mod watch;

/// Where the dispatchers of a scene keep their sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// A file in the data directory
    Sqlite,
    /// A server of the test's own
    Postgres,
}

impl Store {
    pub fn name(self) -> &'static str {
        match self {
            Store::Sqlite => "sqlite",
            Store::Postgres => "postgres",
        }
    }

    /// The server that it needs, for as long as it is held.
    pub fn serve(self, yes: bool) -> anyhow::Result<Option<Postgres>> {
        match self {
            Store::Sqlite => Ok(None),
            Store::Postgres => Postgres::start(yes).map(Some),
        }
    }
}
