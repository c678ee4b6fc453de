//! `callbox relay`: carries one call while dispatchers come and go. Not for people.

use callbox_server::media::relay;

use crate::error::{CliError, chain};

/// Until the call is over.
pub fn run() -> Result<(), CliError> {
    relay::run().map_err(|error| CliError::Usage(chain(&error)))
}
