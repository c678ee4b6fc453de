//! How many files this process may have open: a dispatcher has a socket for every client.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as the system lets everybody; or, for whoever may, to `wanted`. Tells
/// what it is then; none for no limit.
pub fn raise(wanted: Option<u64>) -> Option<u64> {
    let now = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| match (limit, wanted) {
        (Some(limit), Some(wanted)) => limit >= wanted,
        _ => true,
    };
    let mut raised = Rlimit { current: now.maximum, maximum: now.maximum };
    if !enough(now.maximum) {
        let more = Rlimit { current: wanted, maximum: wanted };
        if setrlimit(Resource::Nofile, more).is_ok() {
            return wanted;
        }
        raised.current = now.maximum;
    }
    // It was so before, so it is no harm where it cannot be changed.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current
}
