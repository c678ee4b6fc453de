//! Everything that happened, line by line: the last lines are kept, all of them are hashed, so
//! that two runs of a seed can be compared.

use std::{collections::VecDeque, time::Duration};

/// So many lines are kept.
const KEPT: usize = 4000;

/// See the module's documentation.
pub struct Trace {
    lines: VecDeque<String>,
    hash: u64,
    count: u64,
    loud: bool,
}

impl Trace {
    /// Empty; a loud one prints every line as it comes.
    pub fn new(loud: bool) -> Trace {
        Trace { lines: VecDeque::new(), hash: 0xcbf2_9ce4_8422_2325, count: 0, loud }
    }

    /// Adds a line.
    pub fn line(&mut self, age: Duration, what: &str, detail: &str) {
        let line = format!("{:>12.6} {what} {detail}", age.as_secs_f64());
        for byte in line.bytes() {
            // FNV-1a: enough to see that two texts are not the same.
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.count += 1;
        if self.loud {
            eprintln!("{line}");
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Of all lines.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many lines there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last lines, at most `most`, that `which` names.
    pub fn tail(&self, most: usize, which: impl Fn(&str) -> bool) -> Vec<String> {
        let mut tail: Vec<String> =
            self.lines.iter().rev().filter(|line| which(line)).take(most).cloned().collect();
        tail.reverse();
        tail
    }
}
