use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use callbox_protocol::agent::{LogLine, LogStream};
use tokio::sync::watch;

use crate::feed::{Feed, write_line};

/// Longest text of a line, in bytes.
pub(crate) const MAX_TEXT: usize = 8192;
/// How many lines are kept.
const MAX_LINES: usize = 4096;
/// How much text is kept, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// The last lines that the bot and the agent wrote.
pub(crate) struct Logs {
    ring: Mutex<Ring>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    last: u64,
}

impl Logs {
    pub(crate) fn new() -> Self {
        Self { ring: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Keeps a line of the agent's own, and shows it on the console. Never a secret.
    pub(crate) fn say(&self, text: &str) {
        // Not `eprintln`, which panics when the console is gone.
        let _ = writeln!(std::io::stderr(), "callbox-agent: {text}");
        self.push(LogStream::Agent, text.to_owned());
    }

    /// Keeps a line, and forgets the oldest ones for it.
    pub(crate) fn push(&self, stream: LogStream, mut text: String) {
        if text.len() > MAX_TEXT {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut ring = self.ring();
        ring.last += 1;
        ring.bytes += text.len();
        let line = LogLine {
            seq: ring.last,
            at_ms: now.map_or(0, |now| now.as_millis() as u64),
            stream,
            text,
        };
        ring.lines.push_back(line);
        while ring.lines.len() > MAX_LINES || ring.bytes > MAX_BYTES {
            let Some(oldest) = ring.lines.pop_front() else {
                break;
            };
            ring.bytes -= oldest.text.len();
        }
        drop(ring);
        self.changed.send_replace(());
    }

    /// The last `count` lines that the bot wrote.
    pub(crate) fn tail(&self, count: usize) -> Vec<String> {
        let ring = self.ring();
        let of_bot = ring.lines.iter().rev().filter(|line| line.stream != LogStream::Agent);
        let mut tail: Vec<_> = of_bot.take(count).map(|line| line.text.clone()).collect();
        tail.reverse();
        tail
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed for Logs {
    fn read(&self, after: u64, limit: usize) -> (Vec<u8>, u64) {
        let ring = self.ring();
        let (mut out, mut last) = (Vec::new(), after);
        let start = ring.lines.partition_point(|line| line.seq <= after);
        for line in ring.lines.range(start..) {
            write_line(&mut out, line);
            last = line.seq;
            if out.len() >= limit {
                break;
            }
        }
        (out, last)
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_make_room() {
        let logs = Logs::new();
        for number in 0..MAX_LINES + 10 {
            logs.push(LogStream::Stdout, number.to_string());
        }
        let (text, _) = logs.read(0, 1);
        let first: LogLine = serde_json::from_slice(&text).expect("a line");
        assert_eq!((first.seq, first.text.as_str()), (11, "10"));
        assert_eq!(logs.tail(2), ["4104", "4105"]);
    }

    #[test]
    fn long_texts_are_bounded_in_length_and_in_sum() {
        let logs = Logs::new();
        for _ in 0..300 {
            logs.push(LogStream::Stderr, "é".repeat(MAX_TEXT));
        }
        let ring = logs.ring();
        assert!(ring.bytes <= MAX_BYTES);
        assert!(ring.lines.iter().all(|line| line.text.len() <= MAX_TEXT));
        assert_eq!(ring.last, 300);
    }
}
