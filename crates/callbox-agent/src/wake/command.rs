//! `reseed = "command"`: a program of the image has the bot's process reseed itself, in a way
//! that only the two know (a signal, a socket, a file).

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use callbox_protocol::agent::{BotWake, LogStream, Prepare};
use futures::future::join_all;
use rustix::process::{Signal, geteuid, kill_process_group};
use tokio::time::timeout;

use crate::logs::Logs;
use crate::machine::Machine;
use crate::reap::Exit;
use crate::{bot, pipe, program};

/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long its last words are waited for: what it left behind may hold its pipes open.
const WORDS_PATIENCE: Duration = Duration::from_millis(500);
/// How many of its last lines say why it failed.
const LAST_WORDS: usize = 5;

/// Runs the program to its end. Exit code 0 acknowledges; everything else is said in the words
/// of the program.
pub(super) async fn run(
    machine: &Machine,
    prepare: &Prepare,
    argv: &[String],
    wake: &BotWake,
) -> Result<Vec<String>, String> {
    let name = argv.first().map_or("", String::as_str);
    let failed = |problem: String| format!("the reseed command {name:?} {problem}");
    let mut command = command(prepare, argv, wake)?;
    let is_machine = machine.place.is_machine();
    let spawned = bot::spawn(&mut command, is_machine, machine.reaper());
    let (mut child, group, mut exit) =
        spawned.map_err(|error| failed(format!("cannot be started: {error}")))?;
    // Ours alone at first: the log of the machine has its words between those of the bot.
    let words = Arc::new(Logs::new());
    let pipes = [
        (child.stdout.take().map(OwnedFd::from), LogStream::Stdout),
        (child.stderr.take().map(OwnedFd::from), LogStream::Stderr),
    ];
    let reading = pipes.into_iter().filter_map(|(pipe, stream)| {
        Some(tokio::spawn(pipe::read_lines(pipe?, stream, Arc::clone(&words))))
    });
    let reading: Vec<_> = reading.collect();
    if let Some(mut stdin) = child.stdin.take() {
        // A line fits into any pipe, so this waits for nobody. Who does not read it, needs none.
        let _ = writeln!(stdin, "{}", wake.entropy);
    }
    let ended = timeout(PATIENCE, exit.wait_for(Option::is_some)).await;
    let ended = ended.map(|exit| exit.ok().and_then(|exit| *exit));
    if ended.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = timeout(WORDS_PATIENCE, join_all(reading)).await;
    let last_words = words.tail(LAST_WORDS);
    for line in &last_words {
        machine.logs.say(&format!("reseed command: {line}"));
    }
    let problem = match ended {
        Ok(Some(Exit { code: Some(0), .. })) => return Ok(vec![format!("command:{name}")]),
        Ok(Some(exit)) => format!("failed: {exit}"),
        Ok(None) => "failed: it ended".to_owned(),
        Err(_) => format!("did not end within {} s", PATIENCE.as_secs()),
    };
    let said = last_words.join(" | ");
    Err(failed(if said.is_empty() { problem } else { format!("{problem}; it said: {said}") }))
}

/// The program as the bot's user, in the bot's environment and directory. The secret is not in
/// it: environments and arguments can be read by others.
fn command(prepare: &Prepare, argv: &[String], wake: &BotWake) -> Result<Command, String> {
    let [name, arguments @ ..] = argv else {
        return Err("its reseed command is empty".to_owned());
    };
    let environment = program::environment(&prepare.env, prepare.uid);
    let path = program::find(name, &environment, &prepare.cwd)?;
    let mut command = Command::new(path);
    command
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(&environment)
        .env("CALLBOX_GENERATION_ID", &wake.generation_id)
        .current_dir(&prepare.cwd)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if geteuid().is_root() {
        command.uid(prepare.uid).gid(prepare.gid);
    }
    Ok(command)
}
