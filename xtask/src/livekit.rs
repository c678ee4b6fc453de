//! The LiveKit server that tests meet in, and where it comes from.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::bail;

use crate::{
    host,
    steps::{answer, step, text},
};

/// Where tests look for the server's program; a program of one's own may be named there, too.
pub const PROGRAM: &str = "CALLBOX_TEST_LIVEKIT_SERVER";

/// What is built. Newer ones replace modules in a way that `go install` refuses.
const MODULE: &str = "github.com/livekit/livekit-server/cmd/server";
const VERSION: &str = "v1.13.5";

/// The server's program, built by Go if it is not there yet.
pub fn program() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os(PROGRAM) {
        return Ok(given.into());
    }
    let dir = host::target().join("tools").join(format!("livekit-server-{VERSION}"));
    let program = dir.join("server");
    if program.exists() {
        return Ok(program);
    }
    let Some(go) = go() else {
        bail!(
            "LiveKit's server is built with Go 1.26 or newer, and there is no `go`; install it, or \
             name the program of a server in {PROGRAM}"
        );
    };
    std::fs::create_dir_all(&dir)?;
    let mut install = Command::new(go);
    install.args(["install", &format!("{MODULE}@{VERSION}")]).env("GOBIN", text(&dir));
    step(&format!("build LiveKit's server {VERSION}"), &mut install)?;
    Ok(program)
}

/// `sudo` forgets where it is.
fn go() -> Option<PathBuf> {
    ["go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go"]
        .into_iter()
        .find(|program| answer(program, &["version"]).is_some())
        .map(|program| Path::new(program).to_owned())
}
