//! One session for each call after which its dispatcher dies.

use std::{
    collections::BTreeSet,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::Signal;

use super::super::scene::{
    api::PATIENCE,
    caller::{self, Events, How, Line, Plan},
    dispatcher::{Dispatcher, Home},
    host::{Leak, Looker},
    settle::{until_nothing_is_left, what_stays},
    watch::Watch,
};

/// How long the call is.
const CALL: Duration = Duration::from_millis(300);

/// What came of one death.
pub struct Crash {
    /// The dispatcher died after so many calls.
    pub after: u64,
    /// The last of them.
    pub call: String,
    /// Requests that were cut and repeated.
    pub cut_requests: u64,
    /// The client's connection broke before it was heard, and it came again.
    pub came_again: u64,
    pub code: String,
    pub leaked: Vec<Leak>,
    /// Two machines at once, two sessions for a key, a session that nobody was given.
    pub doubled: Vec<String>,
    /// An acknowledged session that is unknown, or had no end.
    pub lost: Option<String>,
    /// The call broke, and it was not the machine's fault.
    pub broken: Option<String>,
    pub took: Duration,
}

impl Crash {
    pub fn ok(&self) -> bool {
        let nothing = self.leaked.is_empty() && self.doubled.is_empty();
        nothing && self.lost.is_none() && self.broken.is_none()
    }
}

/// Counts the calls of a session, then has the dispatcher die after each.
pub fn run(home: &Home, only: Option<u64>) -> anyhow::Result<Vec<Crash>> {
    let calls = trace(home)?;
    eprintln!("   {} calls: {}", calls.len(), calls.join(", "));
    let all = 1..=u64::try_from(calls.len())?;
    let mut crashes = Vec::new();
    for after in all.filter(|number| only.is_none_or(|only| only == *number)) {
        let crash = die_after(home, after).with_context(|| format!("after call {after}"))?;
        eprintln!("   died after {after}, {}: {}", crash.call, crash.code);
        crashes.push(crash);
    }
    Ok(crashes)
}

/// The calls of one session, when nobody dies.
fn trace(home: &Home) -> anyhow::Result<Vec<String>> {
    let file = home.path.join("trace");
    let traced = [("CRASH_TRACE", file.display().to_string())];
    let mut dispatcher = Dispatcher::start_with(home, "127.0.0.1:0", &traced)?;
    dispatcher.wait_until_ready()?;
    let plan = plan("counted");
    caller::live(&dispatcher.api, &Events::default(), &Line::default(), &plan)?;
    dispatcher.end(Signal::TERM)?;
    let calls = fs::read_to_string(&file).context("no call was traced")?;
    fs::remove_file(&file)?;
    Ok(calls.lines().map(str::to_owned).collect())
}

fn plan(key: &str) -> Plan {
    let key = format!("crash-{key}");
    Plan { key, after: Duration::ZERO, how: How::Call(CALL), delete: true }
}

fn die_after(home: &Home, after: u64) -> anyhow::Result<Crash> {
    let began = Instant::now();
    let file = home.path.join("trace");
    let env =
        [("CRASH_TRACE", file.display().to_string()), ("CRASH_AFTER_CALL", after.to_string())];
    let mut doomed = Dispatcher::start_with(home, "127.0.0.1:0", &env)?;
    doomed.wait_until_ready()?;
    let mut looker = Looker::new(&home.path);
    looker.look();
    let before = doomed.api.sessions(true)?;
    let watch = Watch::begin(&home.path);
    let (api, line) = (doomed.api.clone(), Arc::<Line>::default());
    let (its_api, its_line, plan) = (api.clone(), Arc::clone(&line), plan(&after.to_string()));
    let client =
        std::thread::spawn(move || caller::live(&its_api, &Events::default(), &its_line, &plan));
    let dying = Instant::now();
    while !doomed.is_gone()? {
        if dying.elapsed() > PATIENCE {
            bail!("it made no {after} calls within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut next = Dispatcher::start(home, &api.address)?;
    let outcome = client.join().expect("it does not panic");
    let calls = fs::read_to_string(&file).context("no call was traced")?;
    fs::remove_file(&file)?;
    let (_, leaked) = until_nothing_is_left(&mut looker, &next, |_| false)?;
    let mut crash = Crash {
        after,
        call: calls.lines().last().unwrap_or_default().to_owned(),
        cut_requests: 0,
        came_again: 0,
        code: String::new(),
        leaked,
        doubled: watch.end().into_iter().map(|id| format!("{id} had two machines")).collect(),
        lost: None,
        broken: None,
        took: Duration::ZERO,
    };
    let known = next.api.sessions(true)?;
    match outcome {
        Ok(outcome) => {
            let ours: BTreeSet<String> = [outcome.id.clone()].into();
            let new: BTreeSet<String> = known.difference(&before).cloned().collect();
            let nobodys = new.difference(&ours).map(|id| format!("nobody was given {id}"));
            crash.doubled.extend(nobodys.chain(outcome.other_session));
            let lost = outcome.unknown || !new.contains(&outcome.id);
            crash.lost = lost.then(|| format!("{} is unknown", outcome.id));
            crash.cut_requests = outcome.cut_requests;
            crash.came_again = outcome.came_again;
            crash.broken = outcome.broken;
            if outcome.code != outcome.planned {
                crash.lost = Some(format!("it ended with {:?}", outcome.code));
            }
            crash.code = outcome.code;
        }
        Err(error) => crash.lost = Some(format!("{error:#}")),
    }
    next.end(Signal::TERM)?;
    crash.leaked.extend(what_stays(&mut looker));
    looker.remove_hierarchies();
    crash.took = began.elapsed();
    Ok(crash)
}
