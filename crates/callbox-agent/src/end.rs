//! How a machine ends.

use std::sync::Arc;
use std::time::Duration;

use callbox_protocol::agent::Phase;
use rustix::process::Signal;
use rustix::system::{RebootCommand, reboot};
use tokio::time::{sleep, timeout};

use crate::machine::Machine;
use crate::place::Kind;

/// How long after the bot's end the last answers and events may take to get out.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long the kernel may take to end a process, and its last lines to be read.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// What the bot gets when nobody is there to say.
const ORPHANS_GRACE: Duration = Duration::from_secs(3);

/// Ends the bot (SIGTERM, after `grace` SIGKILL), and then the machine.
pub(crate) async fn stop(machine: Arc<Machine>, grace: Duration) {
    if let Some(bot) = machine.bot() {
        if bot.exited().is_none() {
            bot.signal(Signal::TERM);
            let _ = timeout(grace, bot.exit()).await;
        }
        // For a bot that does not listen, and for what a bot that does leaves behind.
        bot.signal(Signal::KILL);
        let _ = timeout(KILL_PATIENCE, machine.reached(Phase::Over)).await;
    }
    sleep(LAST_WORDS).await;
    end(machine.place.is_init());
}

/// The dead-man switch: ends an awake machine that no host has cared for in a long while.
/// A template or a reserve may wait for ever: it is not awake. But a machine that dials its host
/// is alone from the beginning.
pub(crate) async fn watch_for_orphanhood(machine: Arc<Machine>) {
    if !matches!(machine.place.kind, Kind::Joined(_)) {
        machine.reached(Phase::Awake).await;
    }
    let mut hosts = machine.hosts();
    let patience = machine.place.orphan_after;
    loop {
        // The count is a part of the machine, so waiting for it cannot fail.
        let _ = hosts.wait_for(|hosts| *hosts == 0).await;
        if timeout(patience, hosts.wait_for(|hosts| *hosts > 0)).await.is_err() {
            let seconds = patience.as_secs();
            machine.logs.say(&format!("no host for {seconds} s: this machine ends itself"));
            return stop(machine, ORPHANS_GRACE).await;
        }
    }
}

/// The last net: no session lasts so long, so nobody is there any more to end this machine.
pub(crate) async fn after_the_longest_life(machine: Arc<Machine>, longest: Duration) {
    sleep(longest).await;
    let seconds = longest.as_secs_f64();
    machine.logs.say(&format!("{seconds} s are the longest life: this machine ends itself"));
    stop(machine, ORPHANS_GRACE).await;
}

/// Ends the machine at once; outside a machine, this process. The kernel's command line makes
/// every reboot the end of the virtual machine.
pub(crate) fn end(is_init: bool) -> ! {
    if is_init {
        let _ = reboot(RebootCommand::Restart);
        // PID 1 must not return; if it does, the kernel panics, which ends the machine too.
    }
    std::process::exit(0)
}
