#![doc = include_str!("../README.md")]

mod api;
mod boot;
mod bot;
mod carrier;
mod cmdline;
mod end;
mod events;
mod feed;
mod hello;
mod hosts;
#[cfg(feature = "join")]
mod join;
mod kernel;
mod logs;
mod loopback;
mod machine;
mod modules;
mod netlink;
mod pipe;
mod place;
mod port;
mod prepare;
mod private;
mod program;
mod ready;
mod reap;
mod refusal;
mod serve;
mod session;
mod sockets;
mod tunnel;
mod wake;
mod warn;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use callbox_protocol::agent::{AGENT_PORT_NAME, MEDIA_PORT_NAME};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::boot::BootError;
use crate::cmdline::Cmdline;
use crate::machine::Machine;
use crate::place::{Kind, Place};
use crate::port::Port;
use crate::serve::{Access, serve};

/// What a kernel says that runs well enough to get here (`callbox.probe`).
const PROBE_OK: &str = "callbox-probe-ok";
/// How long the serial port may take to show up after its driver was loaded.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // In a container, whatever the image starts is the first process, too.
    #[cfg(feature = "join")]
    if let [word, arguments @ ..] = arguments.as_slice()
        && word == "join"
    {
        return ended(join::run(arguments));
    }
    // The kernel hands words it does not know to init, so PID 1 has no arguments of its own.
    if std::process::id() == 1 {
        let error = be_init();
        complain(&error);
        end::end(true);
    }
    let outcome = match arguments.as_slice() {
        [flag, path] if flag == "--serve-unix" => serve_unix(Path::new(path)),
        [flag] if flag == "--version" => {
            println!("callbox-agent {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => Err(io::Error::other("this program is the first process of a callbox machine")),
    };
    ended(outcome)
}

fn ended(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// PID 1: boots, then serves the port for as long as the machine lives. Returns only to fail.
fn be_init() -> BootError {
    let booting = boot::wake_up().and_then(|cmdline| {
        if cmdline.probe {
            println!("{PROBE_OK}");
            end::end(true);
        }
        boot::bring_up(&cmdline).map(|()| cmdline)
    });
    let served = booting.and_then(|cmdline| {
        in_runtime(serve_port(cmdline)).map_err(BootError::of("serve the host"))
    });
    match served {
        Err(error) => error,
        Ok(()) => BootError::of("go on")(io::Error::other("the port to the host is gone")),
    }
}

async fn serve_port(cmdline: Cmdline) -> io::Result<()> {
    let machine = Machine::new(Place {
        kind: Kind::Init,
        run_dir: PathBuf::from(boot::RUN_DIR),
        orphan_after: cmdline.orphan_after,
    })?;
    // Both before the first call: when the machine is frozen, both stand at the hello. Nobody was
    // ever on the second, so a clone that finds nobody there is told of no change.
    let (control, media) = (find_port(AGENT_PORT_NAME).await?, find_port(MEDIA_PORT_NAME).await?);
    tokio::spawn(end::watch_for_orphanhood(Arc::clone(&machine)));
    tokio::spawn(serve(Arc::clone(&machine), media, Access::Media));
    serve(machine, control, Access::Control).await;
    Ok(())
}

/// The port's name comes in a message of its own, after the driver was loaded.
async fn find_port(name: &str) -> io::Result<Port> {
    let pause = Duration::from_millis(5);
    for _ in 0..PORT_PATIENCE.as_millis() / pause.as_millis() {
        if let Some(port) = Port::open(name)? {
            return Ok(port);
        }
        sleep(pause).await;
    }
    Err(io::Error::other(format!("the machine has no serial port named {name}")))
}

/// The whole protocol against real processes, without a machine: for tests and development.
fn serve_unix(path: &Path) -> io::Result<()> {
    in_runtime(async {
        let machine = Machine::new(Place {
            kind: Kind::Process,
            run_dir: path.with_extension("run"),
            orphan_after: Duration::from_secs(120),
        })?;
        let listener = UnixListener::bind(path)?;
        let media = UnixListener::bind(path.with_extension("media"))?;
        tokio::spawn(end::watch_for_orphanhood(Arc::clone(&machine)));
        let (mut interrupted, mut terminated) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    tokio::spawn(serve(Arc::clone(&machine), accepted?.0, Access::Control));
                }
                accepted = media.accept() => {
                    tokio::spawn(serve(Arc::clone(&machine), accepted?.0, Access::Media));
                }
                _ = interrupted.recv() => break,
                _ = terminated.recv() => break,
            }
        }
        // A machine takes its bot along when it ends; a process has to see to it.
        end::stop(machine, Duration::ZERO).await;
        Ok(())
    })
}

fn in_runtime<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn complain(error: &dyn std::fmt::Display) {
    // Not `eprintln`, which panics when the console is gone.
    let _ = writeln!(io::stderr(), "callbox-agent: {error}");
}
