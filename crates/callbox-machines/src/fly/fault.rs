//! What Fly's errors mean for a driver.

use callbox_core::Fault;
use callbox_fly::{Error, ErrorKind, Happened, Thing};

/// As the driver needs it.
pub(super) fn fault(error: &Error) -> Fault {
    match &error.kind {
        ErrorKind::NotFound { thing: Thing::Machine | Thing::Unsaid } => Fault::not_found(error),
        _ if error.happened() == Happened::Maybe => Fault::unknown(error),
        _ if error.may_pass() => Fault::unavailable(error),
        _ => Fault::refused(hinted(error)),
    }
}

/// What can be done about what will not pass by itself.
fn hinted(error: &Error) -> String {
    let hint = match &error.kind {
        ErrorKind::Unauthorized => "; is fly.token a token that works?",
        ErrorKind::Forbidden => "; may fly.token use the apps in fly.apps?",
        ErrorKind::NotFound { thing: Thing::App } => {
            "; make it with `fly apps create`, or correct fly.apps"
        }
        ErrorKind::Invalid => "; Fly does not take this machine: see the bot's configuration",
        _ => "",
    };
    format!("{error}{hint}")
}
