//! Telling the bot that its session is about to end.
//!
//! A courtesy: the host ends the session at its time, whatever came of this. So a bot that
//! cannot be told is named in the log, and fails nothing.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callbox_protocol::agent::{BOT_WARNING_PATH, Contract, Phase, Prepare, Warning, WarningSignal};
use http::Method;
use rustix::process::Signal;
use tokio::time::timeout;

use crate::loopback;
use crate::machine::Machine;
use crate::private;
use crate::refusal::Refusal;

/// How long an `http` bot may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where a `command` bot finds the warning, in the directory of the bot's files.
const FILE: &str = "warning.json";

/// Tells the bot, in the way of its contract.
pub(crate) async fn warn(machine: &Machine, warning: &Warning) -> Result<(), Refusal> {
    let phase = machine.phase();
    if phase == Phase::Over {
        let message = "there is nobody to warn: the bot has ended".to_owned();
        return Err(Refusal::bot_exited(message, machine.tail()));
    }
    let Some(prepare) = machine.prepared().filter(|_| phase == Phase::InSession) else {
        return Err(Refusal::wrong_phase("warn", phase));
    };
    let told = match &prepare.contract {
        Contract::Http { .. } => post(prepare.port, warning).await,
        Contract::Command { warning_signal, .. } => {
            leave(&machine.place.run_dir, warning, &prepare).map_err(|error| {
                Refusal::internal(format!("the warning cannot be written for the bot: {error}"))
            })?;
            signal(machine, *warning_signal)
        }
    };
    let seconds = warning.ends_in_ms as f64 / 1000.0;
    let reason = &warning.reason;
    machine.logs.say(&format!("the session ends in {seconds:.1} s ({reason}): {told}"));
    Ok(())
}

/// `http`: says what came of it.
async fn post(port: u16, warning: &Warning) -> String {
    let body = serde_json::to_vec(warning).unwrap_or_default();
    let asking = loopback::ask(port, Method::POST, BOT_WARNING_PATH, &[], body);
    match timeout(PATIENCE, asking).await {
        Ok(Ok((200..=299, _))) => "the bot was told".to_owned(),
        Ok(Ok((404, _))) => format!("the bot hears no warnings (no {BOT_WARNING_PATH})"),
        Ok(Ok((status, _))) => format!("POST {BOT_WARNING_PATH} answers {status}"),
        Ok(Err(error)) => format!("POST {BOT_WARNING_PATH} fails: {error}"),
        Err(_) => {
            format!("POST {BOT_WARNING_PATH} does not answer within {} s", PATIENCE.as_secs())
        }
    }
}

/// `command`: a file, and a signal where the configuration names one.
fn leave(run_dir: &Path, warning: &Warning, prepare: &Prepare) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ends_at_ms = now.as_millis() as u64 + warning.ends_in_ms;
    let text = serde_json::json!({
        "ends_in_ms": warning.ends_in_ms,
        "ends_at_ms": ends_at_ms,
        "reason": warning.reason,
    });
    // By rename: whoever watches for the file finds all of it.
    let new = run_dir.join("warning.new");
    private::write(&new, prepare, text.to_string().as_bytes())?;
    fs::rename(&new, run_dir.join(FILE))
}

fn signal(machine: &Machine, signal: Option<WarningSignal>) -> String {
    let Some(wanted) = signal else {
        return format!("it is written in {}", machine.place.run_dir.join(FILE).display());
    };
    let (name, number) = match wanted {
        WarningSignal::Usr1 => ("SIGUSR1", Signal::USR1),
        WarningSignal::Usr2 => ("SIGUSR2", Signal::USR2),
        WarningSignal::Hup => ("SIGHUP", Signal::HUP),
        WarningSignal::Int => ("SIGINT", Signal::INT),
    };
    match machine.bot() {
        Some(bot) if bot.exited().is_none() => {
            bot.signal_leader(number);
            format!("the bot got {name} and finds it in {FILE}")
        }
        _ => "the bot's process does not run".to_owned(),
    }
}
