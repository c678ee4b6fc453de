//! `callbox-agent join`: a program of an image, in a machine that somebody else boots. It dials its
//! dispatcher, serves the protocol of all agents to it, and dials again whenever the connection is
//! gone: a dispatcher that restarts finds its machine again.
//!
//! ```text
//! ENTRYPOINT ["/callbox-agent", "join", "--"]     the image's own words for its bot follow
//! CMD ["python3", "bot.py"]
//! ```

mod config;
mod dial;
mod socket;

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use callbox_protocol::join::{Join, Rejoin};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::machine::Machine;
use crate::place::{Kind, Place};
use crate::serve::{Access, serve};
use crate::{end, in_runtime};
use dial::{Dialler, Unheard, some_of};

/// Between two tries to reach the dispatcher, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that lasted so long was a good one: the next try comes at once.
const GOOD: Duration = Duration::from_secs(5);

/// Serves the dispatcher until there is no more to do. Returns only to fail.
pub(crate) fn run(arguments: &[OsString]) -> io::Result<()> {
    let (file, argv) = config::arguments(arguments)?;
    let join = config::take(&file)?;
    let place = Place {
        kind: Kind::Joined(config::image(argv)?),
        run_dir: config::run_dir()?,
        orphan_after: Duration::from_millis(join.orphan_ms),
    };
    in_runtime(async {
        let machine = Machine::new(place)?;
        tokio::spawn(end::watch_for_orphanhood(Arc::clone(&machine)));
        let stops = (
            signal(SignalKind::terminate())?,
            // Fly's own, unless it is told another one.
            signal(SignalKind::interrupt())?,
        );
        let grace = Duration::from_millis(join.stop_grace_ms);
        // Beside the connection: the bot's last words and its end go out over it.
        tokio::spawn(end_when_told(Arc::clone(&machine), stops, grace));
        keep_dialling(&machine, &join).await
    })
}

async fn keep_dialling(machine: &Arc<Machine>, join: &Join) -> io::Result<()> {
    let dialler = Dialler::new(join)?;
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    let mut name = join.machine.clone();
    loop {
        let told = machine.rejoin();
        let told =
            told.unwrap_or_else(|| Rejoin { token: join.token.clone(), ..Rejoin::default() });
        if let Some(new) = told.machine {
            name = new;
        }
        let dialled = match told.eager {
            true => dialler.dial_in_steps(&name, &told.token).await,
            false => dialler.dial(&name, &told.token).await,
        };
        let began = Instant::now();
        let trouble = match dialled {
            Ok(socket) => {
                said.clear();
                serve(Arc::clone(machine), socket, Access::Control).await;
                if began.elapsed() > GOOD {
                    pause = FIRST_PAUSE;
                }
                "the connection to the dispatcher ended".to_owned()
            }
            Err(Unheard::NotWanted(why)) => {
                machine.logs.say(&format!("nobody wants this machine any more: {why}"));
                end::stop(Arc::clone(machine), Duration::from_millis(join.stop_grace_ms)).await;
                return Ok(());
            }
            Err(Unheard::NotNow(why)) => why,
        };
        // Once, and not in every round: this is in the log of the provider.
        if trouble != said {
            machine.logs.say(&format!("{trouble}; dialling again"));
            said = trouble;
        }
        if machine.rejoin().is_some_and(|rejoin| rejoin.eager) {
            pause = FIRST_PAUSE;
            continue;
        }
        sleep(some_of(pause)).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Ends the bot, and then the machine, when the provider stops it.
async fn end_when_told(machine: Arc<Machine>, mut stops: (Signal, Signal), grace: Duration) {
    tokio::select! {
        _ = stops.0.recv() => {}
        _ = stops.1.recv() => {}
    }
    machine.logs.say("the provider stops this machine");
    end::stop(machine, grace).await;
}
