//! What happens before there is a session: prepare and freeze.

use std::sync::Arc;
use std::time::{Duration, Instant};

use callbox_protocol::agent::{Contract, Frozen, Phase, Prepare, Prepared, Reseed};
use rustix::process::Pid;
use tokio::time::sleep;

use crate::bot::LaunchError;
use crate::machine::Machine;
use crate::program;
use crate::ready::{self, Outcome, Sign};
use crate::refusal::Refusal;
use crate::sockets::{self, Sockets};

/// How long connections that are being closed may take, and between two looks at them.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
const CLOSE_PAUSE: Duration = Duration::from_millis(20);

/// Does everything about the bot that needs no session.
pub(crate) async fn prepare(machine: &Arc<Machine>, prepare: Prepare) -> Result<Prepared, Refusal> {
    let _turn = machine.begin("prepare", &[Phase::Booted])?;
    let prepare = machine.place.complete(prepare);
    let start = Instant::now();
    match &prepare.contract {
        Contract::Command { .. } => check_command(&prepare)?,
        Contract::Http { reseed } => {
            check_reseed(&prepare, reseed)?;
            start_server(machine, &prepare).await?;
        }
    }
    let took_ms = start.elapsed().as_millis() as u64;
    machine.logs.say(&format!("prepared in {took_ms} ms"));
    machine.set_prepared(prepare);
    Ok(Prepared { took_ms })
}

/// A `command` bot starts with its session. What is wrong with it shall be known before.
fn check_command(prepare: &Prepare) -> Result<(), Refusal> {
    program::check(&prepare.argv).map_err(Refusal::bad_request)?;
    let Some(name) = prepare.argv.first() else {
        return Err(Refusal::bad_request("the bot's command is empty"));
    };
    let environment = program::environment(&prepare.env, prepare.uid);
    match program::find(name, &environment, &prepare.cwd) {
        Err(reason) if !name.contains('{') => Err(Refusal::bot_not_found(reason)),
        _ => Ok(()),
    }
}

/// Better now than at the wake of the first clone.
fn check_reseed(prepare: &Prepare, reseed: &Reseed) -> Result<(), Refusal> {
    let Reseed::Command { argv } = reseed else {
        return Ok(());
    };
    let Some(name) = argv.first() else {
        return Err(Refusal::bad_request("the bot's reseed command is empty"));
    };
    let environment = program::environment(&prepare.env, prepare.uid);
    let found = program::find(name, &environment, &prepare.cwd);
    found.map(drop).map_err(|reason| Refusal::bot_not_found(format!("reseed command: {reason}")))
}

async fn start_server(machine: &Arc<Machine>, prepare: &Prepare) -> Result<(), Refusal> {
    let bot =
        machine.launch(prepare, &prepare.argv, &prepare.env).map_err(|error| match error {
            LaunchError::NotFound(reason) => Refusal::bot_not_found(reason),
            refused @ LaunchError::Refused { .. } => Refusal::bot_not_found(refused.to_string()),
        })?;
    let time = Duration::from_millis(prepare.ready_timeout_ms);
    match ready::wait(Sign::Readyz(prepare.port), &bot, time).await {
        Outcome::Ready => Ok(()),
        Outcome::Exited(exit) => {
            // Until then, not all that it wrote is there.
            machine.reached(Phase::Over).await;
            let message = format!("the bot ended before it was ready: {exit}");
            Err(Refusal::bot_exited(message, machine.tail()))
        }
        Outcome::Late(detail) => {
            bot.signal(rustix::process::Signal::KILL);
            machine.reached(Phase::Over).await;
            Err(Refusal::not_ready(format!("the bot is {detail}"), machine.tail()))
        }
    }
}

/// Makes sure that nothing is open that a clone could not have, and writes everything out.
pub(crate) async fn freeze(machine: &Arc<Machine>) -> Result<Frozen, Refusal> {
    // Again after a refusal, or when the host did not see the answer.
    let _turn = machine.begin("freeze", &[Phase::Prepared, Phase::Frozen])?;
    // Outside a machine, the kernel's table lists all the world's sockets.
    let group = match machine.bot() {
        _ if machine.place.is_machine() => None,
        Some(bot) => Some(bot.group()),
        None => Some(rustix::process::getpid()),
    };
    let sockets = closed(group).await?;
    if machine.place.is_machine() {
        rustix::fs::sync();
    }
    machine.advance(Phase::Frozen);
    Ok(Frozen { listening: sockets.listening })
}

/// Waits a moment for what is about to close, such as the bot's end of our own last question.
async fn closed(group: Option<Pid>) -> Result<Sockets, Refusal> {
    let start = Instant::now();
    loop {
        let sockets = sockets::survey(group);
        if sockets.open.is_empty() {
            return Ok(sockets);
        }
        if start.elapsed() > CLOSE_PATIENCE {
            return Err(Refusal::established(&sockets.open));
        }
        sleep(CLOSE_PAUSE).await;
    }
}
