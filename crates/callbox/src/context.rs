//! What every command shares: which dispatcher, as whom, and how to draw.

use std::path::PathBuf;

use crate::api_client::ApiClient;
use crate::error::CliError;
use crate::secret::Secret;
use crate::terminal::Look;

/// Options of every command.
#[derive(Debug, clap::Args)]
pub struct GlobalArgs {
    /// The dispatcher
    #[arg(
        long,
        global = true,
        env = "CALLBOX_URL",
        default_value = "http://127.0.0.1:7860",
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub url: String,

    /// API key. Better in the environment or a file: arguments are visible to everybody on
    /// the host
    #[arg(
        long,
        global = true,
        env = "CALLBOX_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = "Global options"
    )]
    pub key: Option<Secret>,

    /// File that holds the API key; wins over --key
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub key_file: Option<PathBuf>,

    /// Print results and errors only, no progress
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub quiet: bool,
}

/// See [`GlobalArgs`].
pub struct Context {
    global: GlobalArgs,
    /// How to draw on standard output.
    pub look: Look,
}

impl Context {
    /// From what was typed.
    pub fn new(global: GlobalArgs) -> Context {
        Context { global, look: Look::of_stdout() }
    }

    /// A client of the dispatcher that was named. Asks nothing of it yet.
    pub fn client(&self) -> Result<ApiClient, CliError> {
        let key = match &self.global.key_file {
            Some(path) => Some(read_key(path)?),
            None => self.global.key.clone(),
        };
        Ok(ApiClient::new(&self.global.url, key.filter(|key| !key.is_empty()))?)
    }

    /// Whether progress is not wanted.
    pub fn quiet(&self) -> bool {
        self.global.quiet
    }
}

fn read_key(path: &PathBuf) -> Result<Secret, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => {
            Err(CliError::Usage(format!("the key file {path:?} is empty")))
        }
        Ok(text) => Ok(Secret::new(text)),
        Err(source) => Err(CliError::File { doing: "read", path: path.clone(), source }),
    }
}
