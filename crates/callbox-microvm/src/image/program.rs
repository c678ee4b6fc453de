//! Running the host's programs.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self as stdio, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::ImageError;

/// Debian packages that must be on the host to build images from recipes (importing needs only
/// `erofs-utils`). Which program comes from which: `mmdebstrap`, `mkfs.erofs`, `pip`.
pub const HOST_PACKAGES: &[&str] = &["mmdebstrap", "erofs-utils", "python3-pip"];

const TAIL_LINES: usize = 15;
const LINE_BYTES: u64 = 4096;

/// A program of the host, with what its failure is to be called.
pub(super) struct Program {
    command: Command,
    name: String,
    doing: String,
    input: Vec<u8>,
}

impl Program {
    /// The program `name`, which Debian package `package` brings.
    pub fn find(name: &str, package: &'static str, doing: &str) -> Result<Program, ImageError> {
        let path = find(name)
            .ok_or_else(|| ImageError::MissingProgram { program: name.into(), package })?;
        Ok(Program::at(&path, name, doing))
    }

    /// Like [`find`](Self::find), but contained: see [`contained_at`](Self::contained_at).
    pub fn contained(
        name: &str,
        package: &'static str,
        doing: &str,
    ) -> Result<Program, ImageError> {
        let path = find(name)
            .ok_or_else(|| ImageError::MissingProgram { program: name.into(), package })?;
        Program::contained_at(&path, name, doing)
    }

    /// The program at `path` in a mount and process namespace of its own, killed with
    /// everything that it started when this thread ends. So whatever happens to the build, no
    /// mount and no process outlives it.
    pub fn contained_at(path: &Path, name: &str, doing: &str) -> Result<Program, ImageError> {
        let mut program = Program::find("setpriv", "util-linux", doing)?;
        program.name = name.into();
        program
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"])
            .args(["--kill-child=KILL", "--"])
            .args([path]);
        Ok(program)
    }

    /// The program at `path`.
    pub fn at(path: &Path, name: &str, doing: &str) -> Program {
        let mut command = Command::new(path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Program { command, name: name.into(), doing: doing.into(), input: Vec::new() }
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&mut self, args: I) -> &mut Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        self.command.env(name, value);
        self
    }

    /// Gives it nothing of our environment.
    pub fn bare(&mut self) -> &mut Self {
        self.command.env_clear();
        self
    }

    /// What it reads on its standard input.
    pub fn input(&mut self, input: Vec<u8>) -> &mut Self {
        self.command.stdin(Stdio::piped());
        self.input = input;
        self
    }

    /// Runs it to its end and returns what it wrote to standard output (at most 4 MiB).
    /// An exit code in `also_fine` counts as success, like 0.
    pub fn run(&mut self, also_fine: &[i32]) -> Result<String, ImageError> {
        let child = self
            .command
            .spawn()
            .map_err(|error| self.failed(format!("could not be started: {error}"), Vec::new()))?;
        let (status, stdout, tail) = finish(child, std::mem::take(&mut self.input))
            .map_err(|error| self.failed(format!("could not be followed: {error}"), Vec::new()))?;
        match status.code() {
            Some(code) if code == 0 || also_fine.contains(&code) => Ok(stdout),
            Some(code) => Err(self.failed(format!("exited with code {code}"), tail)),
            None => Err(self.failed("was killed by a signal".into(), tail)),
        }
    }

    fn failed(&self, outcome: String, tail: Vec<String>) -> ImageError {
        ImageError::Program { doing: self.doing.clone(), program: self.name.clone(), outcome, tail }
    }
}

/// Feeds and drains a child; returns its end, its output, and its last words.
fn finish(
    mut child: Child,
    input: Vec<u8>,
) -> stdio::Result<(std::process::ExitStatus, String, Vec<String>)> {
    let stdin = child.stdin.take();
    let feed = thread::spawn(move || {
        // A program that does not read all of its input says why in its exit code.
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(&input);
        }
    });
    let stderr = child.stderr.take();
    let tail = thread::spawn(move || stderr.map(last_lines).unwrap_or_default());
    let mut stdout = Vec::new();
    if let Some(mut out) = child.stdout.take() {
        out.by_ref().take(4 << 20).read_to_end(&mut stdout)?;
        stdio::copy(&mut out, &mut stdio::sink())?;
    }
    let status = child.wait()?;
    let _ = feed.join();
    let mut tail = tail.join().unwrap_or_default();
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    if tail.is_empty() {
        tail = last_lines(stdout.as_bytes());
    }
    Ok((status, stdout, tail))
}

fn last_lines(stream: impl Read) -> Vec<String> {
    let mut reader = BufReader::new(stream);
    let mut lines = VecDeque::new();
    let mut line = Vec::new();
    while let Ok(1..) = reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if text.is_empty() {
            continue;
        }
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }
    lines.into()
}

/// Where a program is: on `PATH`, or where Debian keeps the ones for root.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failure_carries_the_last_words() {
        let mut program = Program::find("sh", "dash", "testing").unwrap();
        program.args(["-c", "echo working; echo 'the reason' >&2; exit 3"]);
        let message = program.run(&[]).unwrap_err().to_string();
        assert!(message.contains("testing: sh exited with code 3"), "{message}");
        assert!(message.contains("  | the reason"), "{message}");
    }

    #[test]
    fn input_is_fed_and_output_returned() {
        let mut program = Program::find("cat", "coreutils", "testing").unwrap();
        assert_eq!(program.input(b"hello".to_vec()).run(&[]).unwrap(), "hello");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = Program::find("no-such-program", "some-package", "testing").err().unwrap();
        assert!(error.hint().unwrap().contains("apt-get install some-package"));
    }
}
