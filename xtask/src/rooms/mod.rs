//! `cargo xtask test rooms`: calls that do not pass through the dispatcher, with the real servers
//! and the vendors' own clients, and a bot in a real machine.
//!
//! ```text
//! mod ── what is tried      stage ── host and internet      servers ── LiveKit
//! ```

mod servers;
mod stage;

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{
    build,
    demo::{self, Dispatcher},
    host, livekit,
    steps::{command, step, text},
};
use servers::{DISPATCHER, KEY, LIVEKIT, SECRET, Server};
use stage::{HOST, INTERNET, Stage};

/// From how much resemblance on a sound counts as the one that was said. Other sentences have 0.3,
/// the same one backwards 0.4, and what comes back on a busy host without KVM 0.65 to 0.8.
const ALIKE: f64 = 0.5;

/// So many calls, of which one must be heard well: WebRTC keeps no pace in a machine without KVM
/// while this host has something else to do.
const CALLS: u32 = 3;

/// Everything; `python` has the clients.
pub fn check(python: &Path) -> anyhow::Result<()> {
    let server = match livekit::program() {
        Ok(server) => server,
        Err(why) => {
            eprintln!("\n!!! NOT TESTED: calls in rooms of a LiveKit server.\n!!! {why:#}\n");
            return Ok(());
        }
    };
    let mut contract = host::cargo(&["test", "--locked", "-p", "callbox-transports", "livekit"]);
    step("the transport livekit with a real server", contract.env(livekit::PROGRAM, &server))?;
    let callbox = build::callbox(false)?;
    let data_dir = host::target().join("test-rooms");
    std::fs::create_dir_all(&data_dir)?;
    build::image(&callbox, &data_dir, "rooms.toml")?;
    let config = data_dir.join("rooms.toml");
    std::fs::write(&config, configuration(&data_dir)?)?;
    // Before there is a stage: there are no packages to be had on it, and the first template
    // makes the guests' kernel.
    let arguments = ["template", "bake", "--bot", "rooms", "--config", text(&config)];
    let mut bake = command(text(&callbox), &arguments);
    step("its template", bake.env("CALLBOX_DATA_DIR", &data_dir))?;
    let key = demo::key(&callbox, &data_dir)?;
    let stage = Stage::set()?;
    let _livekit = Server::livekit(&stage.internet, &server, &data_dir)?;
    let listen = format!("{HOST}:{DISPATCHER}");
    let mut dispatcher = stage.host.run(|| {
        let arguments = ["--config", text(&config)];
        Dispatcher::start_with(&callbox, &data_dir, &listen, &arguments)
    })?;
    stage.host.run(|| dispatcher.wait_until_ready())?;
    for left in (0..CALLS).rev() {
        let seen = client(&stage, python, "livekit_call.py", &key)?;
        eprintln!("   {seen:#}");
        match judge(&seen) {
            Err(unlike) if left > 0 => eprintln!("   {unlike}; {left} more"),
            judged => {
                judged?;
                break;
            }
        }
    }
    dispatcher.stop()
}

/// A client's account of its call.
fn client(stage: &Stage, python: &Path, program: &str, key: &str) -> anyhow::Result<Value> {
    eprintln!("── a call by {program}");
    let dispatcher = format!("http://{HOST}:{DISPATCHER}");
    let mut client = command(text(python), &[program, &dispatcher, key, "rooms"]);
    client.current_dir(host::root().join("bot/tests")).stderr(Stdio::inherit());
    let output = stage.internet.run(|| client.output().context("cannot run the client"))?;
    if !output.status.success() {
        bail!("the client {program} ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the client's account cannot be read")
}

/// Whether that was a call.
fn judge(seen: &Value) -> anyhow::Result<()> {
    let echo = seen["echo"].as_f64().unwrap_or(0.0);
    if echo < ALIKE {
        bail!("what came back is not what was said: {echo:.2} of {ALIKE}");
    }
    if seen["live"]["state"] != "live" {
        bail!("a session with bot and client in it is not live: {}", seen["live"]);
    }
    if seen["ended"]["state"] != "ended" {
        bail!("the session did not end when its client left: {}", seen["ended"]);
    }
    Ok(())
}

fn configuration(data_dir: &Path) -> anyhow::Result<String> {
    let (key, secret) = (data_dir.join("livekit.key"), data_dir.join("livekit.secret"));
    std::fs::write(&key, KEY)?;
    std::fs::write(&secret, SECRET)?;
    Ok(format!(
        "[local]\nboot_timeout_s = 120\n\
         [local.network]\ndns = [\"{INTERNET}\"]\n\
         [livekit]\nurl = \"ws://{INTERNET}:{LIVEKIT}\"\n\
         api_key = {{ file = {key:?} }}\napi_secret = {{ file = {secret:?} }}\n\
         [bots.rooms]\nimage = \"rooms\"\ntransports = [\"livekit\"]\nnetwork = \"internet\"\n\
         allow = [\"{INTERNET}\"]\n\
         [bots.rooms.timeouts]\nready_s = 240\nalone_s = 3\n"
    ))
}
