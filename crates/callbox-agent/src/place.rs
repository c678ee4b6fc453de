use std::path::PathBuf;
use std::time::Duration;

/// Where the agent runs, and so what it may do.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// PID 1 of a machine of its own; otherwise an ordinary process of a developer or a test,
    /// which mounts nothing, sets no clock and ends nothing but itself.
    pub in_machine: bool,
    /// Where the files for the bot go.
    pub run_dir: PathBuf,
    /// How long an awake machine lives without a host.
    pub orphan_after: Duration,
}
