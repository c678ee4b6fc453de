//! The program `nft`: the only one that is run for a network, once per machine, never between a
//! request and its answer.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::NetError;
use crate::qemu::version::look_up;

/// A `nft` that was found.
#[derive(Clone, Debug)]
pub struct Nft(PathBuf);

impl Nft {
    /// Looks it up in `PATH`.
    pub fn find() -> Option<Nft> {
        look_up(Path::new("nft"), std::env::var_os("PATH").as_deref()).map(Nft)
    }

    /// Loads `rules` into the network namespace of the calling thread, all or nothing. Blocks for
    /// some 10 ms.
    ///
    /// # Errors
    /// [`NetError::Rules`] with what it says.
    pub fn load(&self, whose: &'static str, rules: &str) -> Result<(), NetError> {
        let failed = |said: String| NetError::Rules { whose, said };
        let mut child = self
            .command(&["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let mut stdin = child.stdin.take().expect("stdin was asked for as a pipe");
        // If it hung up, its exit status says more.
        let written = stdin.write_all(rules.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(failed(said));
        }
        written.map_err(|error| failed(error.to_string()))
    }

    /// Whether this table is there.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn has(&self, table: &str) -> Result<bool, NetError> {
        let failed =
            |error: std::io::Error| NetError::Rules { whose: "host", said: error.to_string() };
        let status = self
            .command(&["list", "table", "inet", table])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        Ok(status.map_err(failed)?.success())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        // Nothing of the dispatcher's environment, where secrets are, goes anywhere.
        command.args(arguments).env_clear().current_dir("/").stdout(Stdio::null());
        command
    }
}
