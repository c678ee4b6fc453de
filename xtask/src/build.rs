//! Building callbox, its agent and its images.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::{
    host,
    steps::{answer, command, step, text},
};

const GUEST: &str = "x86_64-unknown-linux-musl";

/// The agent for guests: static, so that it runs in any image.
pub fn agent() -> anyhow::Result<PathBuf> {
    guest("build the guest agent", &[])
}

fn guest(what: &str, features: &[&str]) -> anyhow::Result<PathBuf> {
    guest_target()?;
    let mut args = vec!["build", "--locked", "-p", "callbox-agent", "--profile", "agent"];
    args.extend(["--target", GUEST]);
    args.extend(features);
    step(what, &mut host::cargo(&args))?;
    Ok(host::target().join(GUEST).join("agent/callbox-agent"))
}

/// The agent as a program of an image, beside the recipe that wants it. Before [`agent`], as both
/// have the same name on the way.
pub fn agent_that_dials() -> anyhow::Result<()> {
    let built = guest("build the agent that dials", &["--features", "join"])?;
    let place = host::root().join("images/built/callbox-agent");
    std::fs::create_dir_all(place.parent().context("it has a directory")?)?;
    put_beside(&built, &place)
}

/// The compiler's library for guests. `rust-toolchain.toml` names it, but a rustup that may not
/// install by itself, and a toolchain from elsewhere, leave it out.
fn guest_target() -> anyhow::Result<()> {
    let sysroot = answer("rustc", &["--print", "sysroot"]).unwrap_or_default();
    if Path::new(sysroot.trim()).join("lib/rustlib").join(GUEST).join("lib").exists() {
        return Ok(());
    }
    if answer("rustup", &["--version"]).is_none() {
        bail!("the compiler has no library for {GUEST}; install Rust by rustup, or that library");
    }
    step(
        "install the compiler's library for guests",
        &mut command("rustup", &["target", "add", GUEST]),
    )
}

/// The binary, with the agent beside it, where it looks for it.
pub fn callbox(release: bool) -> anyhow::Result<PathBuf> {
    let agent = agent()?;
    let mut args = vec!["build", "--locked", "-p", "callbox"];
    if release {
        args.push("--release");
    }
    step("build callbox", &mut host::cargo(&args))?;
    let dir = host::target().join(if release { "release" } else { "debug" });
    put_beside(&agent, &dir.join("callbox-agent"))?;
    Ok(dir.join("callbox"))
}

/// A binary that dies after a call of its choice, beside the ordinary one; the ordinary one is
/// built anew, as both have the same name on the way.
pub fn callbox_that_crashes() -> anyhow::Result<PathBuf> {
    let args = ["build", "--locked", "-p", "callbox", "--features", "crash-points"];
    step("build a callbox that crashes", &mut host::cargo(&args))?;
    let dir = host::target().join("debug");
    let crashes = dir.join("callbox-crashes");
    put_beside(&dir.join("callbox"), &crashes)?;
    callbox(false)?;
    Ok(crashes)
}

/// By rename, because a running dispatcher may be reading the old one.
fn put_beside(built: &Path, place: &Path) -> anyhow::Result<()> {
    let new = place.with_extension("new");
    std::fs::copy(built, &new).with_context(|| format!("cannot copy to {}", new.display()))?;
    std::fs::rename(&new, place).with_context(|| format!("cannot make {}", place.display()))
}

/// An image from its recipe; at once when nothing it is made of has changed.
pub fn image(callbox: &Path, data_dir: &Path, recipe: &str) -> anyhow::Result<()> {
    let recipe = host::root().join("images").join(recipe);
    let mut build = command(text(callbox), &["image", "build", text(&recipe)]);
    let name = recipe.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    step(&format!("image {name}"), build.env("CALLBOX_DATA_DIR", data_dir))
}
