//! `cargo xtask vm-test clones`: many clones of one template, and nothing twice.
//!
//! Clones are started as clients start sessions, through the API. Each is asked, as soon as its
//! bot is ready, for everything that could be the same as its sibling's (`bots/identity`), and
//! for the time. A control shows that the test would notice: clones of the same bot whose process
//! is not reseeded, which must repeat themselves.

mod client;
mod clock;
mod compare;
mod report;

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::Context as _;

use crate::{build, demo::Dispatcher, host, packages, steps::text, test};
use client::Seen;

/// Start clones of one template and compare everything that must differ between them
///
/// Exit code 1 if any value is there twice or missing, or if the control, whose bots are not
/// reseeded, does not repeat itself.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many clones
    #[arg(long, short, default_value_t = 32, value_parser = clap::value_parser!(u16).range(2..=1000))]
    n: u16,
    /// How many at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    at_once: u16,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Leave the bot's process as its template had it, to see the test fail
    #[arg(long)]
    without_reseed: bool,
    /// Install packages without asking
    #[arg(long, short)]
    yes: bool,
}

/// The bot, as it should be.
const RESEEDED: &str = "identity";
/// The same, of which some are made, woken and stopped before they are asked for.
const RESERVED: &str = "identity-reserve";
/// How many of those are asked for: more than its reserve holds at first.
const FROM_RESERVE: u16 = 6;
/// The same bot, of which only the machine's kernel is reseeded.
const CONTROL: &str = "identity-control";
/// How many of those are enough to see them repeat themselves.
const CONTROLS: u16 = 3;

pub fn run(args: &Args) -> anyhow::Result<()> {
    if !host::is_root() {
        return host::again_as_root();
    }
    packages::ensure(packages::MACHINES, args.yes || std::env::var_os("CI").is_some())?;
    let callbox = build::callbox(false)?;
    let data_dir = test::data_dir()?;
    if !check(&callbox, &data_dir, args)? {
        std::process::exit(1);
    }
    Ok(())
}

impl Args {
    /// What `cargo xtask test vm` asks for.
    pub fn of_tests() -> Args {
        Args { n: 32, at_once: 2, json: false, without_reseed: false, yes: true }
    }
}

/// Whether all is as promised. What was seen is printed in any case.
pub fn check(callbox: &Path, data_dir: &Path, args: &Args) -> anyhow::Result<bool> {
    build::image(callbox, data_dir, "identity.toml")?;
    let began = Instant::now();
    let config = configuration(data_dir)?;
    let arguments = ["--config", text(&config)];
    let mut dispatcher = Dispatcher::start_with(callbox, data_dir, "127.0.0.1:0", &arguments)?;
    dispatcher.wait_until_ready()?;
    let prepared = began.elapsed();
    let bot = if args.without_reseed { CONTROL } else { RESEEDED };
    let mut clones = clones_of(&dispatcher.url, bot, args.n, args.at_once)?;
    if !args.without_reseed {
        // Their siblings, too: a machine of the reserve is of the same template, and woken twice.
        clones.extend(clones_of(&dispatcher.url, RESERVED, FROM_RESERVE, 1)?);
    }
    let control = match args.without_reseed {
        true => None,
        false => Some(clones_of(&dispatcher.url, CONTROL, CONTROLS, args.at_once)?),
    };
    dispatcher.stop()?;
    let report = report::Report {
        bot,
        clones: &clones,
        control: control.as_deref(),
        prepared,
        took: began.elapsed(),
    };
    if args.json {
        println!("{:#}", report.json());
    } else {
        report.print();
    }
    Ok(report.ok())
}

/// Starts `n` clones and asks each; a few at a time, so that a small host is not all that is seen.
fn clones_of(url: &str, bot: &str, n: u16, at_once: u16) -> anyhow::Result<Vec<Seen>> {
    eprintln!("── {n} clones of {bot}, {at_once} at a time");
    let began = Instant::now();
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> anyhow::Result<()> {
        while next.fetch_add(1, Ordering::Relaxed) < usize::from(n) {
            let one = client::ask(url, bot).with_context(|| format!("a clone of {bot}"))?;
            seen.lock().expect("nobody panics with it").push(one);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once.min(n)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    eprintln!("   {n} clones of {bot}: {:.1} s", began.elapsed().as_secs_f64());
    Ok(seen.into_inner().expect("nobody panicked with it"))
}

/// Both bots, of one image.
fn configuration(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = data_dir.join("vm-test-clones.toml");
    let text = format!(
        "[local]\nboot_timeout_s = 120\n\
         [bot_defaults]\nimage = \"identity\"\nmemory_mib = 512\n\
         [bot_defaults.timeouts]\nready_s = 240\n\
         [bots.{RESEEDED}]\nreseed = \"hook\"\n\
         [bots.{RESERVED}]\nreseed = \"hook\"\nreserve = {{ min = 2, max = 2 }}\n\
         [bots.{CONTROL}]\nreseed = \"kernel\"\n"
    );
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
