//! Telling a bot that its call will end.

use std::time::Duration;

use callbox_core::{EndCode, Time};
use callbox_link::{Link, LinkError};
use callbox_protocol::agent::Warning;
use tokio::sync::watch;

use super::Chain;
use crate::{outside, plane::Plane};

/// How often a bot is tried to be warned, and how long each time: an agent gives its bot five
/// seconds to answer, and a broken connection takes a moment to be made anew.
const WARNINGS: u32 = 3;
const WARNING: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Until somebody has heard it: a connection may be made anew just now, an agent be busy. One
/// that answers no has said all it will say.
///
/// # Errors
/// What was tried and what came of it.
pub(crate) async fn warn(
    plane: &Plane,
    mut links: watch::Receiver<Option<Link>>,
    deadline: Time,
    reason: EndCode,
) -> Result<(), String> {
    let mut failure = String::new();
    for _ in 0..WARNINGS {
        let left = plane.clock.until(deadline);
        let attempt = async {
            let link = links.wait_for(Option::is_some).await.ok()?.clone()?;
            let ends_in_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let warning = Warning { ends_in_ms, reason: reason.as_str().into() };
            Some(outside::call("machine.warn", link.warn(&warning)).await)
        };
        match tokio::time::timeout(WARNING.min(left), attempt).await {
            Ok(Some(Ok(()))) => return Ok(()),
            Ok(Some(Err(error @ LinkError::Agent { .. }))) => return Err(Chain(&error).to_string()),
            Ok(Some(Err(error))) => failure = Chain(&error).to_string(),
            Ok(None) | Err(_) => failure = "its agent does not answer".into(),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(failure)
}
