//! How a bot is spoken to, from the words for it in the configuration.

use callbox_protocol::agent::{CommandReady, Contract, Reseed, WarningSignal};

use super::raw::{RawBot, RawContract, RawReady, RawReseed};
use super::{ConfigError, wrong};

/// The contract of one bot; `key` makes the dotted path of one of its fields.
pub(super) fn contract(
    raw: &RawBot,
    key: impl Fn(&str) -> String,
) -> Result<Contract, ConfigError> {
    let warning_signal = match raw.warning_signal.as_str() {
        "" => None,
        name => Some(signal_named(name).ok_or_else(|| {
            let problem =
                format!("{name:?} is none of SIGUSR1, SIGUSR2, SIGHUP and SIGINT; empty for none");
            wrong(key("warning_signal"), problem)
        })?),
    };
    match raw.contract {
        RawContract::Http if warning_signal.is_some() => Err(wrong(
            key("warning_signal"),
            "bots with contract = \"http\" hear warnings at POST /_callbox/warning",
        )),
        RawContract::Http => Ok(Contract::Http { reseed: reseed(raw, key)? }),
        RawContract::Command => Ok(Contract::Command {
            ready: match raw.ready {
                RawReady::Started => CommandReady::Started,
                RawReady::Listening => CommandReady::Listening,
            },
            warning_signal,
        }),
    }
}

fn reseed(raw: &RawBot, key: impl Fn(&str) -> String) -> Result<Reseed, ConfigError> {
    let by_command = raw.reseed == RawReseed::Command;
    if by_command == raw.reseed_argv.is_empty() {
        let problem = if by_command {
            "name the program that has the bot reseed, as reseed = \"command\" wants one"
        } else {
            "it is run with reseed = \"command\" only"
        };
        return Err(wrong(key("reseed_argv"), problem));
    }
    Ok(match raw.reseed {
        RawReseed::Hook => Reseed::Hook,
        RawReseed::Command => Reseed::Command { argv: raw.reseed_argv.clone() },
        RawReseed::Kernel => Reseed::Kernel,
    })
}

fn signal_named(name: &str) -> Option<WarningSignal> {
    match name {
        "SIGUSR1" => Some(WarningSignal::Usr1),
        "SIGUSR2" => Some(WarningSignal::Usr2),
        "SIGHUP" => Some(WarningSignal::Hup),
        "SIGINT" => Some(WarningSignal::Int),
        _ => None,
    }
}
