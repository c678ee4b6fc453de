//! What this host's failures mean to a driver.

use callbox_core::{Fault, FaultKind};
use callbox_link::LinkError;
use callbox_microvm::{Error, NetError, chain, image::ImageError};

use crate::StartFault;

/// What the bot did wrong is told apart from what the host did.
pub(super) fn start_fault(error: Error) -> StartFault {
    match error {
        Error::Link {
            source: source @ (LinkError::Agent { .. } | LinkError::NotReseeded { .. }),
            ..
        } => StartFault::of_prepare(source),
        error => StartFault::Provider(fault(error)),
    }
}

pub(super) fn fault(error: Error) -> Fault {
    let kind = match &error {
        Error::NotFound(_) => FaultKind::NotFound,
        // It may go better next time, and the session's deadline bounds how often.
        error if error.worth_a_retry() => FaultKind::Unavailable,
        // The host is short of something for the moment: descriptors, memory, a resolver.
        Error::Io { source, .. } if is_shortage(source) => FaultKind::Unavailable,
        Error::Network(NetError::Name { .. } | NetError::Full(_)) => FaultKind::Unavailable,
        _ => FaultKind::Refused,
    };
    Fault { kind, detail: chain(&error) }
}

/// Too many open files, too many processes, no memory.
fn is_shortage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    // EMFILE and ENFILE have no kind of their own.
    matches!(error.kind(), Kind::OutOfMemory | Kind::WouldBlock)
        || matches!(error.raw_os_error(), Some(23 | 24))
}

pub(super) fn image_fault(error: ImageError) -> Fault {
    Fault::refused(chain(&error))
}
