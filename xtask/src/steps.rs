//! Running programs step by step, with names and times.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use anyhow::{Context as _, bail};

static DONE: AtomicUsize = AtomicUsize::new(0);

/// How many steps were run to a good end.
pub fn done() -> usize {
    DONE.load(Ordering::Relaxed)
}

/// Begins a command that shows its output.
pub fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs a step to its end; standard output goes to standard error, so that ours stays the result.
pub fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("── {name}");
    let began = Instant::now();
    command.stdout(std::io::stderr());
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {program} ({name})"))?;
    if !status.success() {
        bail!("{name} failed: {program} ended with {status}");
    }
    eprintln!("   {name}: {:.1} s", began.elapsed().as_secs_f64());
    DONE.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// What a program prints, or none when it is not there or fails.
pub fn answer(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("our paths are UTF-8")
}
