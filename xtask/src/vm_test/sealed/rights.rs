//! What a bot can do to its own machine.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{call::Call, report::Finding};

/// The bot's user may nothing of what is tried, but what every user of a Linux may.
pub fn who_is_not(what: &str) -> bool {
    what == "make a user namespace"
}

/// Root in its machine may do to it what it likes. What is the host's stays out of its reach.
pub fn who_is_root(what: &str) -> bool {
    !what.starts_with("write the image")
}

/// Has a bot try all of it, and judges what it may not. Also what it said, for the record.
pub fn rights(
    who: &str,
    call: &mut Call<'_>,
    may: fn(&str) -> bool,
) -> anyhow::Result<(Vec<Finding>, Value)> {
    let answer = call.ask(&json!({ "do": "rights" }))?;
    let tried = answer["tried"].as_object().context("the probe tried nothing")?;
    let forbidden = tried.iter().filter(|(what, _)| !may(what));
    let found = forbidden.map(|(what, one)| {
        let said = one["said"].as_str().unwrap_or("it did not try");
        let ok = one["worked"] == Value::Bool(false);
        Finding::new("inside", format!("{who}: rights"), what.as_str(), said, ok)
    });
    Ok((found.collect(), answer.clone()))
}
