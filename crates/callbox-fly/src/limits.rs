//! The documented limits, as data: for whoever plans with them, and for whoever imitates them.

use std::time::Duration;

use crate::Action;

/// What a rate limit counts for: "the machine id or the app id, whichever the request has"
/// (fly.md section 5.1). That create and list, which have no machine id, count for their app is
/// how two third parties and we read it; no text of Fly's says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All calls of that action by this account.
    Account,
    /// The calls of that action on one app.
    App,
    /// The calls of that action on one machine.
    Machine,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Calls a second that are allowed for good.
    pub per_second: f64,
    /// Calls that are allowed at once after silence.
    pub burst: u32,
}

/// The usual one: 1/s, short burst 3/s.
pub const RATE: Rate = Rate { per_second: 1.0, burst: 3 };
/// Of [`Action::Get`].
pub const RATE_GET: Rate = Rate { per_second: 5.0, burst: 10 };
/// Of [`Action::DeleteApp`]: 100 a minute. That all of them may come at once is our reading.
pub const RATE_DELETE_APP: Rate = Rate { per_second: 100.0 / 60.0, burst: 100 };

/// The rate of an action and what it counts for.
///
/// Listing and creating apps, regions and placements have no app id; that they count for the
/// account is a guess on the careful side.
pub fn rate(action: Action) -> (Scope, Rate) {
    match action {
        Action::CreateApp | Action::ListApps | Action::ListOrg => (Scope::Account, RATE),
        Action::Regions | Action::Placements => (Scope::Account, RATE),
        Action::DeleteApp => (Scope::Account, RATE_DELETE_APP),
        Action::GetApp | Action::Create | Action::List => (Scope::App, RATE),
        Action::Get => (Scope::Machine, RATE_GET),
        Action::Update
        | Action::Wait
        | Action::Start
        | Action::Stop
        | Action::Suspend
        | Action::Restart
        | Action::Signal
        | Action::Destroy
        | Action::Cordon
        | Action::Exec
        | Action::Events
        | Action::GetMetadata
        | Action::SetMetadata
        | Action::GetLease
        | Action::AcquireLease
        | Action::ReleaseLease => (Scope::Machine, RATE),
    }
}

/// Machines of one organisation by default, "about 50": started, stopped and suspended ones
/// count (fly.md section 5.2). Fly raises it when asked.
pub const MACHINES_PER_ORG: u32 = 50;

/// Shortest and longest time that one wait call may ask for (fly.md section 3.2).
pub const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Longest grace between a stop's signal and the kill; Fly calls it "best effort", and states
/// it for fly.toml (fly.md section 2.2).
pub const STOP_TIMEOUT: Duration = Duration::from_secs(300);
/// Grace of a stop that says nothing else.
pub const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Signal of a stop that says nothing else.
pub const STOP_SIGNAL_DEFAULT: &str = "SIGINT";

/// Memory that can be suspended for sure, in MB; between this and twice as much two pages of
/// Fly's contradict each other (fly.md section 4).
pub const SUSPEND_MEMORY_MB: u32 = 2048;

/// Size of a root file system without `rootfs.size_gb`, in GB (fly.md section 2.2).
pub const ROOTFS_GB: u32 = 8;

/// Events that one call gives, when not asked for a number and at most.
pub const EVENTS: (u32, u32) = (20, 50);

/// Machines that one page of an organisation's list holds at most.
pub const ORG_PAGE: u32 = 2000;

/// Tries of the restart policy `on-failure` without `max_retries`, in
/// [`RESTART_WINDOW`] (fly.md section 2.2).
pub const RESTART_TRIES: u32 = 10;
/// See [`RESTART_TRIES`].
pub const RESTART_WINDOW: Duration = Duration::from_secs(300);

/// The shapes of one kind of processor (fly.md section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// As `guest.cpu_kind` has it.
    pub cpu_kind: &'static str,
    /// Numbers of processors that there are.
    pub cpus: &'static [u32],
    /// Least memory of each processor in MB.
    pub min_memory_mb: u32,
    /// Most memory of each processor in MB.
    pub max_memory_mb: u32,
    /// Memory comes in multiples of this many MB.
    pub step_mb: u32,
}

/// Both kinds. The multiple of 256 is documented for all; performance machines come in 2048.
pub const SHAPES: [Shape; 2] = [
    Shape {
        cpu_kind: "shared",
        cpus: &[1, 2, 4, 6, 8],
        min_memory_mb: 256,
        max_memory_mb: 2048,
        step_mb: 256,
    },
    Shape {
        cpu_kind: "performance",
        cpus: &[1, 2, 4, 6, 8, 10, 12, 14, 16],
        min_memory_mb: 2048,
        max_memory_mb: 8192,
        step_mb: 2048,
    },
];

/// Regions of 2026 (fly.md section 5.3), with the alias for the part of the world that each
/// belongs to (`region` of a create takes both, and `any`; fly.md section 2.1).
pub const REGIONS: [(&str, &str); 18] = [
    ("ams", "eu"),
    ("arn", "eu"),
    ("bom", "apac"),
    ("cdg", "eu"),
    ("dfw", "na"),
    ("ewr", "na"),
    ("fra", "eu"),
    ("gru", "sa"),
    ("iad", "na"),
    ("jnb", "apac"),
    ("lax", "na"),
    ("lhr", "eu"),
    ("nrt", "apac"),
    ("ord", "na"),
    ("sin", "apac"),
    ("sjc", "na"),
    ("syd", "apac"),
    ("yyz", "na"),
];
