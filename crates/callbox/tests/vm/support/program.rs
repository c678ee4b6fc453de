//! Runs the program to its end.

use serde_json::Value;
use tokio::{process::Command, time::timeout};

use super::PATIENCE;

/// How a run ended and what it said.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Waits for the end of the program.
    pub async fn of(mut command: Command) -> Ran {
        let output = timeout(PATIENCE, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("{command:?} hangs")).unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Fails with everything that was said, unless the exit code is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// That standard error has an error with all of this, and a hint.
    #[track_caller]
    pub fn explains(&self, texts: &[&str]) {
        for text in texts.iter().chain(&["error:", "hint:"]) {
            assert!(self.stderr.contains(text), "no {text:?} in {self:?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }

    /// Standard output, which is one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Standard output, which is one JSON value a line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let line = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        self.stdout.lines().map(line).collect()
    }
}
