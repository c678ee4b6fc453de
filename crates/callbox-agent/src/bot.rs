//! The bot's process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use callbox_protocol::agent::LogStream;
use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};
use tokio::task::JoinHandle;

use crate::logs::Logs;
use crate::pipe;
use crate::program;
use crate::reap::{Exit, ExitWatch, Reaper};

/// The bot is what the kernel shall end first when memory is used up; the agent must live to
/// tell of it.
const BOT_OOM_SCORE: &str = "500";
pub(crate) const AGENT_OOM_SCORE: &str = "-1000";

/// What to start.
pub(crate) struct Launch<'a> {
    pub argv: &'a [String],
    pub env: &'a BTreeMap<String, String>,
    pub cwd: &'a str,
    pub uid: u32,
    pub gid: u32,
}

/// Why the bot was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The program, or the directory to start it in, does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The kernel refused.
    #[error("cannot start {program:?}: {source}")]
    Refused {
        program: String,
        #[source]
        source: io::Error,
    },
}

/// A bot that was started, as the leader of a process group of its own.
pub(crate) struct Bot {
    group: Pid,
    exit: ExitWatch,
    oom_kills_before: u64,
    output: Vec<JoinHandle<()>>,
}

impl Bot {
    /// Starts the bot. Its output goes to `logs`.
    pub(crate) fn launch(
        launch: &Launch<'_>,
        is_machine: bool,
        reaper: &Reaper,
        logs: &Arc<Logs>,
    ) -> Result<Bot, LaunchError> {
        let [name, arguments @ ..] = launch.argv else {
            return Err(LaunchError::NotFound("the bot's command is empty".to_owned()));
        };
        let environment = program::environment(launch.env, launch.uid);
        let path = program::find(name, &environment, launch.cwd).map_err(LaunchError::NotFound)?;
        let refused = |source| LaunchError::Refused { program: name.clone(), source };
        let mut command = Command::new(path);
        command
            .arg0(name)
            .args(arguments)
            .env_clear()
            .envs(&environment)
            .current_dir(launch.cwd)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if geteuid().is_root() {
            command.uid(launch.uid).gid(launch.gid);
        }
        let oom_kills_before = oom_kills();
        let (mut child, group, exit) = spawn(&mut command, is_machine, reaper).map_err(refused)?;
        let pipes = [
            (child.stdout.take().map(OwnedFd::from), LogStream::Stdout),
            (child.stderr.take().map(OwnedFd::from), LogStream::Stderr),
        ];
        let output = pipes.into_iter().filter_map(|(pipe, stream)| {
            let reading = pipe::read_lines(pipe?, stream, Arc::clone(logs));
            Some(tokio::spawn(reading))
        });
        Ok(Bot { group, exit, oom_kills_before, output: output.collect() })
    }

    /// The process group that the bot leads.
    pub(crate) fn group(&self) -> Pid {
        self.group
    }

    /// How the bot ended, if it has.
    pub(crate) fn exited(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits until the bot has ended.
    pub(crate) fn exit(&self) -> impl Future<Output = Exit> + Send + 'static {
        let mut exit = self.exit.clone();
        async move {
            let ended = exit.wait_for(Option::is_some).await;
            let unknown = Exit { code: None, signal: None };
            ended.ok().and_then(|exit| *exit).unwrap_or(unknown)
        }
    }

    /// Sends a signal to the bot and everything it started that did not leave its group.
    pub(crate) fn signal(&self, signal: Signal) {
        // Fails when the whole group is gone, which is what a signal is for.
        let _ = kill_process_group(self.group, signal);
    }

    /// Sends a signal to the bot's main process alone: what it started does not know our words.
    pub(crate) fn signal_leader(&self, signal: Signal) {
        // It is a child that we have not waited for, or it is gone and this fails.
        let _ = kill_process(self.group, signal);
    }

    /// Whether the kernel ended a process for want of memory since this bot was started.
    pub(crate) fn out_of_memory(&self) -> bool {
        oom_kills() > self.oom_kills_before
    }

    /// The tasks that read the bot's output. They end when its last process closed it.
    pub(crate) fn take_output(&mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.output)
    }
}

/// Spawns with the bot's OOM score. The score is inherited: setting it on the child would come
/// too late for what the child starts first.
pub(crate) fn spawn(
    command: &mut Command,
    is_machine: bool,
    reaper: &Reaper,
) -> io::Result<(std::process::Child, Pid, ExitWatch)> {
    if is_machine {
        set_own_oom_score(BOT_OOM_SCORE);
    }
    let spawned = reaper.spawn(command);
    if is_machine {
        set_own_oom_score(AGENT_OOM_SCORE);
    }
    spawned
}

/// How readily the kernel ends this process when memory is used up, -1000 to 1000.
pub(crate) fn set_own_oom_score(score: &str) {
    // Not worth failing a machine for.
    let _ = fs::write("/proc/self/oom_score_adj", score);
}

fn oom_kills() -> u64 {
    let counters = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let kills = counters.lines().find_map(|line| line.strip_prefix("oom_kill "));
    kills.and_then(|count| count.parse().ok()).unwrap_or(0)
}
