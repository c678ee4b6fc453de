//! `cargo xtask vm-test sealed`: real machines try everything that they must not be able to do.
//!
//! A bot (`bots/probe`) tries from inside, as the bot's user and as root of its machine. What it
//! reaches is judged by what it says and by who was seen at the other end, where everything is
//! there and answers (`stage.rs`). Hogs take all that there is beside a call that is listened to.
//! What is around each machine's process is looked at from the host's side.
//!
//! ```text
//! mod ── what is tried, in which order
//! stage, listeners ── a host and an internet of their own
//! call ── a client's side      machine ── the host's side
//! reach, rights, inspect, hogs ── one kind of promise each      report ── what came of it
//! ```

mod call;
mod hogs;
mod inspect;
mod listeners;
mod machine;
mod reach;
mod report;
mod rights;
mod stage;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    build,
    demo::{self, Dispatcher},
    host, packages,
    steps::{answer, step, text},
};
use call::{Api, Call};
use hogs::Ground;
use machine::Machine;
use reach::{Allowed, OTHERS, Tries};
use report::{Finding, Report};
use stage::Stage;

/// Have machines try everything that they must not be able to do
///
/// Exit code 1 if anything forbidden worked, anything allowed did not, or a control failed. What
/// this host cannot do is named loudly, and in the JSON as `not_tried`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Exit with 1 too if this host could not do a part of it
    #[arg(long)]
    all: bool,
    /// Install packages without asking
    #[arg(long, short)]
    yes: bool,
}

/// Bots with a network: of everything; of one place; of everything, as root in their machine.
const OPEN: &str = "probe";
const LISTED: &str = "probe-listed";
const ROOT: &str = "probe-root";
/// The same bot without a network.
const QUIET: &str = "probe-quiet";

pub fn run(args: &Args) -> anyhow::Result<()> {
    if !host::is_root() {
        return host::again_as_root();
    }
    packages::ensure(packages::MACHINES, args.yes || std::env::var_os("CI").is_some())?;
    let callbox = build::callbox(false)?;
    if !check(&callbox, args)? {
        std::process::exit(1);
    }
    Ok(())
}

impl Args {
    /// What `cargo xtask test vm` asks for.
    pub fn of_tests() -> Args {
        Args { json: false, all: true, yes: true }
    }
}

/// Whether all is as promised. What was seen is printed in any case.
pub fn check(callbox: &Path, args: &Args) -> anyhow::Result<bool> {
    // A directory of its own, as a dispatcher that listens for others needs a key.
    let data_dir = host::target().join("test-sealed");
    std::fs::create_dir_all(&data_dir)?;
    build::image(callbox, &data_dir, "probe.toml")?;
    build::image(callbox, &data_dir, "probe-root.toml")?;
    let began = Instant::now();
    // Before there is a stage: there are no packages to be had on it, and the first template
    // makes the guests' kernel.
    let config = configuration(&data_dir, false)?;
    let mut bake = Command::new(callbox);
    bake.args(["template", "bake", "--bot", QUIET, "--config", text(&config)]);
    step("the first template", bake.env("CALLBOX_DATA_DIR", &data_dir))?;
    let mut report = Report::default();
    let played = match Stage::set() {
        Ok(stage) => stage.control().and_then(|found| {
            report.findings.extend(found);
            stage.host.run(|| play(callbox, &data_dir, Some(&stage), &mut report))
        }),
        Err(error) => {
            report.not_tried.push(format!("networks, as there can be no stage: {error:#}"));
            play(callbox, &data_dir, None, &mut report)
        }
    };
    if let Err(error) = played {
        // What was seen until then may say why.
        report.findings.push(Finding::new("test", "", "to the end", format!("{error:#}"), false));
    }
    report.took_s = began.elapsed().as_secs_f64();
    if args.json {
        println!("{:#}", report.json());
    } else {
        report.print();
    }
    Ok(report.ok() && (report.not_tried.is_empty() || !args.all))
}

/// Everything that needs a dispatcher, in the namespace of the calling thread.
fn play(
    callbox: &Path,
    data_dir: &Path,
    stage: Option<&Stage>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let key = demo::key(callbox, data_dir)?;
    let config = configuration(data_dir, stage.is_some())?;
    let arguments = ["--config", text(&config)];
    // As whoever starts a dispatcher may leave it one: open in every child, unless it sees to it.
    let _stray = rustix::pipe::pipe().context("cannot make a pipe")?;
    // At every address of its host, so that there is something to be reached.
    let mut dispatcher = Dispatcher::start_with(callbox, data_dir, "0.0.0.0:0", &arguments)?;
    dispatcher.wait_until_ready()?;
    report.prepared_s = began.elapsed().as_secs_f64();
    let port = dispatcher.url.rsplit_once(':').context("the dispatcher has no port")?.1;
    let api = Api { at: format!("127.0.0.1:{port}"), key };
    let mut neighbour = api.call(QUIET)?;
    let session = {
        neighbour.echo()?;
        neighbour.view()?
    };
    let not_enforced = session["isolation"]["not_enforced"].as_array().into_iter().flatten();
    report.not_enforced = not_enforced.filter_map(Value::as_str).map(str::to_owned).collect();
    if let Some(stage) = stage {
        eprintln!("── probes with a network");
        networks(&api, data_dir, stage, port.parse()?, report)?;
    }
    eprintln!("── a probe without a network");
    quiet(&mut neighbour, stage, report)?;
    around(&[&Machine::of(data_dir, &neighbour.view()?)?], report);
    let ground = Ground { api: &api, data_dir, dispatcher: dispatcher.pid() };
    let (hogs, found) = ground.hogs(&mut neighbour)?;
    report.hogs = hogs;
    report.findings.extend(found);
    neighbour.hang_up()?;
    dispatcher.stop()?;
    report.findings.extend(nothing_left(data_dir, stage.is_some())?);
    Ok(())
}

/// What machines with a network reach, and what is around them.
fn networks(
    api: &Api,
    data_dir: &Path,
    stage: &Stage,
    dispatcher: u16,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut other = api.call(OPEN)?;
    other.ask(&json!({ "do": "listen", "port": OTHERS }))?;
    let (mut user, mut listed, mut root) = (api.call(OPEN)?, api.call(LISTED)?, api.call(ROOT)?);
    let mut machines = Vec::new();
    for call in [&mut other, &mut user, &mut listed, &mut root] {
        call.echo()?;
        machines.push(Machine::of(data_dir, &call.view()?)?);
    }
    let others: Vec<String> = machines.iter().filter_map(Machine::address).collect();
    let tries = Tries::all(dispatcher, &others)?;
    let found = &mut report.findings;
    for (who, call, allowed) in [
        ("internet", &mut user, Allowed::all()),
        ("allow-list", &mut listed, Allowed::one()),
        ("root", &mut root, Allowed::all()),
    ] {
        let began = Instant::now();
        found.extend(reach::reach(who, call, stage, &tries, &allowed)?);
        eprintln!("   {who}: {:.1} s", began.elapsed().as_secs_f64());
    }
    let own = "10.0.2.15";
    found.extend(reach::spoof("internet", &mut user, stage, own, &others, false)?);
    found.extend(reach::spoof("root", &mut root, stage, own, &others, true)?);
    let heard = other.ask(&json!({ "do": "heard" }))?["heard"].clone();
    let nobody = heard.as_array().is_some_and(Vec::is_empty);
    found.push(Finding::new("seen", "another machine", "who came", heard.to_string(), nobody));
    let (of_root, tried) = rights::rights("root", &mut root, rights::who_is_root)?;
    found.extend(of_root);
    report.rights.insert("root".to_owned(), tried);
    around(&machines.iter().collect::<Vec<_>>(), report);
    for call in [other, user, listed, root] {
        call.hang_up()?;
    }
    Ok(())
}

/// A machine without a network has nothing of one, and its bot no rights.
fn quiet(call: &mut Call<'_>, stage: Option<&Stage>, report: &mut Report) -> anyhow::Result<()> {
    let looks = call.ask(&json!({ "do": "look" }))?;
    for (what, seen, expected) in [
        ("interfaces", &looks["interfaces"], json!(["lo"])),
        ("routes", &looks["routes"], json!([])),
        ("addresses of ipv6", &looks["ipv6"], json!([])),
        ("user", &looks["uid"], json!("1000")),
        ("capabilities", &looks["capabilities"], json!("0000000000000000")),
    ] {
        let ok = *seen == expected;
        report.findings.push(Finding::new("inside", "no network", what, seen.to_string(), ok));
    }
    let (found, tried) = rights::rights("bot", call, rights::who_is_not)?;
    report.findings.extend(found);
    report.rights.insert("bot".to_owned(), tried);
    if let Some(stage) = stage {
        let none = Allowed { tcp: Vec::new(), udp: Vec::new(), icmp: Vec::new() };
        let tries = Tries::all(80, &[])?;
        report.findings.extend(reach::reach("no network", call, stage, &tries, &none)?);
    }
    Ok(())
}

fn around(machines: &[&Machine], report: &mut Report) {
    let missing = report.not_enforced.iter().filter(|missing| !missing.starts_with("software"));
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if missing.is_empty() {
        report.findings.extend(inspect::inspect(machines));
    } else {
        let why = format!("what is around machines, as not all of it is: {}", missing.join("; "));
        report.not_tried.push(why);
    }
}

/// What a dispatcher leaves that was ended in order: nothing.
fn nothing_left(data_dir: &Path, network: bool) -> anyhow::Result<Vec<Finding>> {
    let names = std::fs::read_dir(data_dir.join("run"))?.flatten();
    let machines: Vec<_> = names.map(|name| name.file_name()).collect();
    let said = format!("{machines:?}");
    let mut found = vec![Finding::new("left", "nothing", "machines", said, machines.is_empty())];
    let asked: &[(&str, &[&str])] = &[("ip", &["-o", "link"]), ("nft", &["list", "ruleset"])];
    for (program, arguments) in asked.iter().filter(|_| network) {
        let said = answer(program, arguments);
        let said = said.with_context(|| format!("cannot ask {program} what is left"))?;
        let ours: Vec<&str> =
            said.lines().filter(|line| line.contains("cbx-") || line.contains("callbox")).collect();
        found.push(Finding::new("left", "nothing", *program, ours.join("; "), ours.is_empty()));
    }
    Ok(found)
}

fn configuration(data_dir: &Path, network: bool) -> anyhow::Result<PathBuf> {
    let path = data_dir.join("vm-test-sealed.toml");
    // As many connections as are tried: walls are to be what stops them.
    let mut text = format!(
        "[local]\nboot_timeout_s = 120\n\
         [local.network]\ndns = [\"{}\"]\ndeny = [\"{}\"]\nnew_connections_per_s = 10000\n\
         [bot_defaults]\nimage = \"probe\"\nmemory_mib = 256\ndisk_mib = 64\n\
         [bot_defaults.timeouts]\nready_s = 240\n\
         [bots.{QUIET}]\n",
        stage::RESOLVER,
        stage::DENIED,
    );
    if network {
        text += &format!(
            "[bots.{OPEN}]\nnetwork = \"internet\"\n\
             [bots.{LISTED}]\nnetwork = \"internet\"\nallow = [\"{}:80\"]\n\
             [bots.{ROOT}]\nnetwork = \"internet\"\nimage = \"probe-root\"\n",
            stage::OPEN[0],
        );
    } else {
        text += &format!("[bots.{ROOT}]\nimage = \"probe-root\"\n");
    }
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
