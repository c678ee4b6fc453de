//! Standard output. A reader that went away is an error here, not a panic.

use std::io::Write;

use serde::Serialize;

use crate::error::CliError;

/// Prints text as it is.
pub fn text(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Prints one value as JSON over several lines.
pub fn json(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value).map_err(std::io::Error::from)?;
    text(&(json + "\n"))
}

/// Prints one value as one line of JSON.
pub fn json_line(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string(value).map_err(std::io::Error::from)?;
    text(&(json + "\n"))
}
