//! Running a dispatcher: take up what was left, sweep, serve, and end cleanly.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use callbox_core::{EndCode, EndReason, EventKind, SessionId};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::{
    api::{self, App},
    config::OnShutdown,
    drain, driver, history, metrics,
    outside::in_time,
    plane::{Handle, Plane},
    prepare, replica, rollout,
    store::{KeyRecord, StoreError},
    sweep,
    tasks::Task,
};

/// How long sessions may take to end when the dispatcher does.
const LAST_CALLS: Duration = Duration::from_secs(20);
/// How long the sweep at the end may take, and a provider's own tidying before it.
const LAST_SWEEP: Duration = Duration::from_secs(10);

/// Why a dispatcher does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Everybody who reaches the address could start machines.
    #[error("refusing to serve on {listen}: no API key exists, and the address is not loopback")]
    Open {
        /// Where it would have served.
        listen: SocketAddr,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The listener failed.
    #[error("cannot serve")]
    Io(#[from] std::io::Error),
}

/// How long relays may take to end after their sessions did.
const LAST_RELAYS: Duration = Duration::from_secs(6);

/// Whether everybody who reaches `listen` is on this host. Who has a public address is reached
/// through a proxy, which comes from loopback itself.
fn is_loopback(plane: &Plane, listen: SocketAddr) -> bool {
    listen.ip().is_loopback() && plane.config.public_url.is_none()
}

/// Whether it may serve at `listen`. [`run`] looks as well; who wants to say that it serves looks
/// before.
///
/// # Errors
/// [`ServeError::Open`] when everybody who reaches the address could start machines.
pub async fn check_open(plane: &Plane, listen: SocketAddr) -> Result<(), ServeError> {
    if is_loopback(plane, listen) || plane.store.keys().await?.iter().any(KeyRecord::works) {
        return Ok(());
    }
    Err(ServeError::Open { listen })
}

/// Serves on `listener` until `shutdown` resolves, then ends every session, waits for their own
/// ends, or leaves those that can do without us, and returns.
///
/// # Errors
/// See [`ServeError`].
pub async fn run(
    plane: Arc<Plane>,
    listener: TcpListener,
    prometheus: Option<PrometheusHandle>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let listen = listener.local_addr()?;
    check_open(&plane, listen).await?;
    let loopback = is_loopback(&plane, listen);
    let url = plane.config.replica_url.clone();
    plane.replicas.reached_at(url.unwrap_or_else(|| format!("http://{listen}")));
    let background = begin(&plane).await?;
    let upkeep = prometheus.clone().map(|handle| plane.spawn(metrics::keep(handle)));
    let router = api::router(App { plane: Arc::clone(&plane), loopback, prometheus });
    let (stop_serving, served) = tokio::sync::oneshot::channel::<()>();
    let server = plane.spawn(async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(async move {
                let _ = served.await;
            })
            .await
    });
    shutdown.await;
    if plane.config.on_shutdown == OnShutdown::Drain {
        drain::last(&plane, plane.config.shutdown_deadline).await;
    }
    end(&plane, background).await;
    if let Some(upkeep) = upkeep {
        upkeep.abort();
    }
    let _ = stop_serving.send(());
    // Clients that keep a connection open must not keep us.
    let _ = tokio::time::timeout(Duration::from_secs(2), server).await;
    Ok(())
}

/// What goes on in the background of a dispatcher that has begun.
#[must_use = "it is what `end` ends"]
pub struct Background {
    work: [Task<()>; 4],
    /// Says that we live, and looks after others, for as long as sessions are driven here.
    life: [Task<()>; 2],
}

/// Takes up what an earlier dispatcher left, and begins what goes on beside requests.
///
/// # Errors
/// When the store does not answer.
pub async fn begin(plane: &Arc<Plane>) -> Result<Background, StoreError> {
    plane.clock.take_up(&plane.config.data_dir);
    let (beating, resumed) = replica::begin(plane).await?;
    if resumed > 0 {
        tracing::info!(sessions = resumed, "took up what an earlier dispatcher left");
    }
    rollout::begin(plane).await?;
    prepare::announce(plane);
    Ok(Background {
        life: [beating, plane.spawn(replica::run(Arc::clone(plane)))],
        work: [
            plane.spawn(sweep::run(Arc::clone(plane))),
            plane.spawn(prepare::run(Arc::clone(plane))),
            plane.spawn(history::run(Arc::clone(plane))),
            plane.spawn(plane.clock.clone().keep(plane.config.data_dir.clone())),
        ],
    })
}

/// Ends the dispatcher in order: no new sessions, those that live ended or left, nothing of ours
/// half made.
pub async fn end(plane: &Plane, background: Background) {
    let leave = plane.config.on_shutdown == OnShutdown::Leave;
    let those = if leave { "leaving" } else { "ending" };
    tracing::info!("shutting down: no new sessions, {those} those that live");
    plane.close();
    for task in background.work {
        task.abort();
        // Aborted is not dropped: what a task holds is free only when it is over.
        let _ = task.await;
    }
    // A call that we carry ourselves cannot be left.
    end_all(plane, |handle| !leave || handle.media.carried_here()).await;
    if !leave {
        plane.relays.settle(LAST_RELAYS).await;
    }
    for (name, provider) in &plane.providers {
        if let Err(fault) = in_time(LAST_SWEEP, provider.tidy()).await {
            tracing::warn!(provider = name, %fault, "something half made is left");
        }
    }
    if !leave {
        // The sweep that was cut short above may have been half-way through a machine.
        match tokio::time::timeout(LAST_SWEEP, sweep::once(plane)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %driver::Chain(&error), "cannot sweep; the next dispatcher does");
            }
            Err(_) => tracing::warn!("the last sweep takes long; the next dispatcher goes on"),
        }
    }
    // From here on others go on with what is left.
    for task in background.life {
        task.abort();
        let _ = task.await;
    }
    replica::leave(plane).await;
    if matches!(plane.store.living().await, Ok(living) if living.is_empty()) {
        plane.clock.forget(&plane.config.data_dir);
    }
}

/// Ends those sessions that are driven here and that `which` names, and waits until nothing of
/// them is left.
pub async fn end_all(plane: &Plane, which: impl Fn(&Handle) -> bool) {
    let some = || -> Vec<(SessionId, Handle)> {
        plane.handles().into_iter().filter(|(_, handle)| which(handle)).collect()
    };
    let all = async {
        // Again, until none is left: a start may have been under way when the first were told.
        loop {
            let told = some();
            if told.is_empty() {
                return;
            }
            for (_, handle) in &told {
                let why =
                    EndReason::new(EndCode::DispatcherShutdown, "the dispatcher was shut down");
                handle.tell(EventKind::EndRequested(why));
            }
            for (_, Handle { mut session, .. }) in told {
                // The sender goes with the driver, and the driver when nothing is left to do.
                while session.changed().await.is_ok() {}
            }
        }
    };
    if tokio::time::timeout(LAST_CALLS, all).await.is_err() {
        let left: Vec<String> = some().iter().map(|(id, _)| id.to_string()).collect();
        tracing::error!(
            ?left,
            "sessions did not end in time; the next dispatcher goes on with them"
        );
    }
}
