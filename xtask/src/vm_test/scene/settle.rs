//! Waiting until the host is as it should be.

use std::time::{Duration, Instant};

use super::{
    dispatcher::Dispatcher,
    host::{Leak, Looker, Owners},
};

/// How long what belongs to nobody may stay: it is looked for at the start and every minute.
const SWEPT: Duration = Duration::from_secs(120);
/// How long the kernel may take to take down what nobody holds any more.
const KERNELS_TIME: Duration = Duration::from_secs(10);

/// What stays when the last dispatcher has ended. A namespace that nobody holds any more is taken
/// down by the kernel in its own time, and its links with it.
pub fn what_stays(looker: &mut Looker) -> Vec<Leak> {
    let began = Instant::now();
    loop {
        let leaks = looker.look().leaks(&Owners::default());
        if leaks.is_empty() || began.elapsed() > KERNELS_TIME {
            return leaks;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until everything but what is `known` has an owner; what has none after all that time is a
/// leak. Tells when it was so, too.
pub fn until_nothing_is_left(
    looker: &mut Looker,
    dispatcher: &Dispatcher,
    known: impl Fn(&Leak) -> bool,
) -> anyhow::Result<(Instant, Vec<Leak>)> {
    let began = Instant::now();
    loop {
        // Before the sessions: what is there and is not theirs then, is nobody's.
        let seen = looker.look();
        let now = Instant::now();
        let owners = Owners {
            sessions: dispatcher.api.sessions(false)?,
            dispatcher: Some((dispatcher.pid(), dispatcher.since_ms)),
        };
        let mut leaks = seen.leaks(&owners);
        leaks.retain(|leak| !known(leak));
        if leaks.is_empty() || began.elapsed() > SWEPT {
            return Ok((now, leaks));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
