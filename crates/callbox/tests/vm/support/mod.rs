//! What the tests stand on.

mod api;
mod dispatcher;
mod home;
mod images;
mod left;
mod program;
mod sound;
mod talk;
mod wire;

use std::time::Duration;

pub use api::Started;
pub use dispatcher::{Dispatcher, Setting};
pub use home::{Home, agent};
pub use program::Ran;
pub use sound::{Said, assert_is_echo};
pub use talk::Talk;
pub use wire::Wire;

/// How long anything with a machine in it may take: a template of the parrot under software
/// emulation, on a host that has other things to do.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// How long anything without a machine in it may take.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until `level` is so. Fails with `what` if it does not become so in time.
pub async fn until(what: &str, limit: Duration, mut level: impl FnMut() -> bool) {
    let holds = async {
        while !level() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let held = tokio::time::timeout(limit, holds).await;
    assert!(held.is_ok(), "within {} s it did not come about that {what}", limit.as_secs());
}
