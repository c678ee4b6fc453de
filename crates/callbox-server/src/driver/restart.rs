//! What is said of a session whose bot died and that goes on in a fresh machine.

use callbox_core::{MachineState, Session};
use callbox_protocol::api::{LogEntry, LogSource};

use crate::{metrics, plane::Plane};

/// From this line of ours on, a session's log is about its next machine.
const NEXT_MACHINE: &str = "the machine before is gone; making machine ";

/// Writes down that a machine is given up, or that the next one is begun. True if the log says by
/// that all that there is to say about the change.
pub(super) fn note(plane: &Plane, before: &Session, next: &Session) -> bool {
    let log = plane.logs.writer(next.id);
    if before.incarnation != next.incarnation && next.incarnation > 1 {
        log.say(&format!("{NEXT_MACHINE}{}", next.incarnation));
    }
    if before.machine == MachineState::Failed || next.machine != MachineState::Failed {
        return false;
    }
    let why = next.restarted_because.as_ref();
    metrics::restarted(&next.bot, why.map_or("", |why| why.code.as_str()));
    let (nth, most) = (next.restarted.len() + 1, next.restarts.most.saturating_add(1));
    let detail = why.map_or("", |why| why.detail.as_str());
    log.say(&format!("the bot died ({detail}): a fresh machine, {nth} of {most}"));
    true
}

/// How many lines of the machine `incarnation` itself are among these.
pub(super) fn lines_of(entries: &[LogEntry], incarnation: u32) -> u64 {
    let first = match incarnation {
        ..=1 => Some(0),
        later => {
            let begins = format!("{NEXT_MACHINE}{later}");
            let ours =
                |entry: &LogEntry| entry.source == LogSource::Dispatcher && entry.text == begins;
            entries.iter().position(ours)
        }
    };
    // A log that was full before its machine came has none of its lines.
    let entries = first.map_or(&[][..], |first| &entries[first..]);
    let machines = |entry: &&LogEntry| matches!(entry.source, LogSource::Bot | LogSource::Agent);
    entries.iter().filter(machines).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_has_its_own_lines() {
        let entry = |source, text: &str| LogEntry { seq: 0, at_ms: 0, source, text: text.into() };
        let second = format!("{NEXT_MACHINE}2");
        let log = [
            entry(LogSource::Bot, "one"),
            entry(LogSource::Agent, "two"),
            // A bot that says the same is no dispatcher.
            entry(LogSource::Bot, &second),
            entry(LogSource::Dispatcher, &second),
            entry(LogSource::Dispatcher, "joining"),
            entry(LogSource::Bot, "hello again"),
        ];
        assert_eq!(lines_of(&log[..3], 1), 3);
        assert_eq!(lines_of(&log, 2), 1);
        assert_eq!(lines_of(&log, 3), 0, "nothing was written of it");
    }
}
