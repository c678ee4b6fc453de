//! What the commands that stand in for vendors share.

use std::{io::IsTerminal as _, path::Path};

use serde::de::DeserializeOwned;
use tracing_subscriber::EnvFilter;

use crate::error::CliError;

/// Has what happens written to standard error: nothing else than this process reads that, and
/// standard output is for what is printed.
pub fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // Colours are for people at a terminal; a log file is for grep.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    lines.with_writer(std::io::stderr).with_ansi(colours).init();
}

/// The troubles in this file: a JSON list, of which `check` says what is wrong with one.
pub fn troubles<T: DeserializeOwned>(
    path: &Path,
    check: impl Fn(&T) -> Result<(), String>,
) -> Result<Vec<T>, CliError> {
    let read = std::fs::read_to_string(path);
    let text =
        read.map_err(|source| CliError::File { doing: "read", path: path.to_owned(), source })?;
    let wrong = |why: String| CliError::Usage(format!("{path:?} is no list of troubles: {why}"));
    let troubles: Vec<T> = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    troubles.iter().try_for_each(check).map_err(wrong)?;
    Ok(troubles)
}
