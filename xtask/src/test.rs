//! `cargo xtask test`: everything that CI runs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::bail;
use clap::ValueEnum;

use crate::{
    build,
    demo::Dispatcher,
    host::{self, cargo},
    packages,
    postgres::{self, Postgres},
    rooms, sim,
    steps::{answer, command, done, step, text},
    vm_test,
};

/// Install what tests need and run everything that CI runs
///
/// Without arguments: all parts, in the order of this list.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these parts
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Install packages without asking
    #[arg(long, short)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Formatting, lints, the rules of the house
    Lint,
    /// Rust tests that need no machine
    Rust,
    /// Dispatchers in a simulated bad world, and faults that must be noticed there
    Sim,
    /// Real machines: templates, clones, images, calls, bad bots
    Vm,
    /// The Python package and the example bots
    Bot,
    /// Calls in rooms: LiveKit's own server and client, a bot in a real machine
    Rooms,
    /// The page: types, unit tests, bundle, headless Chromium against a real machine
    Web,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if !host::is_root() {
        return host::again_as_root();
    }
    let parts = if args.parts.is_empty() { Part::value_variants() } else { &args.parts };
    let yes = args.yes || std::env::var_os("CI").is_some();
    packages::ensure(packages::MACHINES, yes)?;
    packages::ensure(packages::TESTS, yes)?;
    for part in parts {
        match part {
            Part::Lint => lint()?,
            Part::Rust => rust(yes)?,
            Part::Sim => sim::check()?,
            Part::Vm => vm()?,
            Part::Bot => bot()?,
            Part::Rooms => rooms::check(&python()?)?,
            Part::Web => web(yes)?,
        }
    }
    nothing_left()?;
    eprintln!("all parts passed: {parts:?}");
    // The first step that fails ends the run with an error, so none has failed here.
    println!("steps: {} passed, 0 failed", done());
    Ok(())
}

fn lint() -> anyhow::Result<()> {
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    let clippy = [
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ];
    step("clippy", &mut cargo(&clippy))
}

fn rust(yes: bool) -> anyhow::Result<()> {
    let server = Postgres::start(yes)?;
    // The tests of callbox-microvm start machines; they are part of `vm`.
    let mut test = vec!["test", "--locked", "--workspace", "--exclude", "callbox-microvm"];
    // Their tokio can stop the time, which nobody else's should: they are built apart.
    test.extend(["--exclude", "callbox-sim"]);
    test.extend(STOPPED_TIME.iter().flat_map(|package| ["--exclude", package]));
    step("rust tests", cargo(&test).env(postgres::ADDRESS, &server.url))?;
    let mut test = vec!["test", "--locked"];
    test.extend(STOPPED_TIME.iter().flat_map(|package| ["-p", package]));
    step("rust tests in stopped time", cargo(&test).env(postgres::ADDRESS, &server.url))?;
    let joins = ["test", "--locked", "-p", "callbox-agent", "--features", "join", "join"];
    step("the agent that dials", &mut cargo(&joins))
}

/// Packages whose tests stop the time, beside the simulation (`sim`).
const STOPPED_TIME: [&str; 3] = ["callbox-machines", "callbox-server", "callbox-standins"];

/// Where the images that tests use are kept from run to run.
pub fn data_dir() -> anyhow::Result<PathBuf> {
    let dir = host::target().join("test-data");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn vm() -> anyhow::Result<()> {
    build::agent_that_dials()?;
    let callbox = build::callbox(false)?;
    let agent = callbox.with_file_name("callbox-agent");
    let data_dir = data_dir()?;
    build::image(&callbox, &data_dir, "parrot.toml")?;
    build::image(&callbox, &data_dir, "fly-parrot.toml")?;
    build::image(&callbox, &data_dir, "tiny.toml")?;
    let microvm = ["test", "--locked", "-p", "callbox-microvm", "--", "--test-threads=2"];
    step("machines", cargo(&microvm).env("CALLBOX_AGENT", &agent))?;
    let calls = [
        "test",
        "--locked",
        "-p",
        "callbox",
        "--features",
        "vm-tests",
        "--test",
        "vm",
        "--",
        "--test-threads=1",
    ];
    let mut calls = cargo(&calls);
    calls.env("CALLBOX_AGENT", &agent).env("CALLBOX_TEST_DATA_DIR", &data_dir);
    step("calls into real machines", &mut calls)?;
    if !vm_test::clones::check(&callbox, &data_dir, &vm_test::clones::Args::of_tests())? {
        bail!("clones of one template are not as different as they must be");
    }
    for args in vm_test::kill::Args::of_tests() {
        if !vm_test::kill::check(&callbox, &data_dir, &args)? {
            bail!("what was killed took more with it than it may, or left something behind");
        }
    }
    if !vm_test::crash::check(&data_dir, &vm_test::crash::Args::of_tests())? {
        bail!("a dispatcher that died after one of its calls left something behind");
    }
    if !vm_test::sealed::check(&callbox, &vm_test::sealed::Args::of_tests())? {
        bail!("machines are not as sealed as they must be");
    }
    Ok(())
}

fn bot() -> anyhow::Result<()> {
    let python = python()?;
    let run = |name: &str, args: &[&str]| step(name, &mut module(&python, args));
    run("ruff", &["ruff", "check", ".", "../bots"])?;
    run("ruff format", &["ruff", "format", "--check", ".", "../bots"])?;
    run("mypy", &["mypy"])?;
    // With -rs it says which tests were left out, and why: those that need a dispatcher, see `web`.
    run("bot tests", &["pytest", "-q", "-rs"])
}

/// The bots' own Python environment, made if it is not there.
fn python() -> anyhow::Result<PathBuf> {
    let venv = host::target().join("bot-venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        step("python environment", &mut command("python3", &["-m", "venv", text(&venv)]))?;
    }
    let install = ["pip", "install", "-q", "-r", "requirements-test.txt"];
    step("python packages", &mut module(&python, &install))?;
    Ok(python)
}

fn module(python: &Path, args: &[&str]) -> Command {
    let mut module = command(text(python), &["-m"]);
    module.args(args).current_dir(host::root().join("bot"));
    module
}

fn web(yes: bool) -> anyhow::Result<()> {
    if answer("npm", &["--version"]).is_none() {
        packages::ensure(packages::NODE, yes)?;
    }
    let web = host::root().join("web");
    let npm = |name: &str, args: &[&str]| step(name, command("npm", args).current_dir(&web));
    npm("page: packages", &["ci", "--no-fund", "--no-audit"])?;
    npm("page: types", &["run", "lint"])?;
    npm("page: unit tests", &["test"])?;
    npm("page: the committed bundle matches its sources", &["run", "check-dist"])?;
    npm("page: chromium, every trouble", &["run", "e2e", "--", "--stand-in"])?;
    page_calls_a_real_machine(&web)
}

fn page_calls_a_real_machine(web: &Path) -> anyhow::Result<()> {
    let callbox = build::callbox(false)?;
    let images = data_dir()?;
    build::image(&callbox, &images, "parrot.toml")?;
    let mut dispatcher = Dispatcher::start(&callbox, &images, "127.0.0.1:0")?;
    dispatcher.wait_until_ready()?;
    let mut e2e = command("npm", &["run", "e2e"]);
    e2e.current_dir(web).env("CALLBOX_URL", format!("{}/", dispatcher.url));
    step("page: chromium calls a bot in a real machine", &mut e2e)?;
    // The same client and the same bot file as under Pipecat's own runner (see `bot`).
    let args = ["pytest", "-q", "-rs", "-k", "greets and callbox-serve", "tests/test_parrot.py"];
    let mut client = module(&python()?, &args);
    client.env("CALLBOX_URL", &dispatcher.url);
    step("the runner's client calls a bot in a real machine", &mut client)?;
    dispatcher.stop()
}

/// Tests clean up after themselves; this says so, or which did not.
fn nothing_left() -> anyhow::Result<()> {
    let ours = host::target();
    let left: Vec<String> = std::fs::read_dir("/proc")?
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|cmdline| String::from_utf8_lossy(&cmdline).replace('\0', " "))
        .filter(|cmdline| cmdline.starts_with("qemu-system") && cmdline.contains(text(&ours)))
        .collect();
    if !left.is_empty() {
        bail!("machines are left: {left:#?}");
    }
    Ok(())
}
