//! Machines and relays that no living session claims are ended: what a crash left, what an unknown
//! outcome made after all.
//!
//! Machines are listed *before* sessions are. A machine's name is saved before the machine is
//! made, so one that is on the list has its session on the other, unless nobody claims it.

use std::{sync::Arc, time::Duration};

use crate::{claims::Claims, driver::Chain, metrics, plane::Plane, store::StoreError};

/// How often, beside once at the start.
const EVERY: Duration = Duration::from_secs(60);

/// Sweeps now and from then on.
pub async fn run(plane: Arc<Plane>) {
    if crate::planted::is("no-sweeper") {
        return std::future::pending().await;
    }
    loop {
        if let Err(error) = once(&plane).await {
            tracing::warn!(error = %Chain(&error), "cannot sweep, trying again later");
        }
        let _ = tokio::time::timeout(EVERY, plane.sweep_wanted()).await;
    }
}

/// Ends every relay and destroys every machine that no living session claims; tells how many.
///
/// # Errors
/// When the store does not answer. A provider that does not is reported and passed over.
pub async fn once(plane: &Plane) -> Result<usize, StoreError> {
    let mut swept = plane.relays.sweep(&*plane.store).await?;
    for (name, provider) in &plane.providers {
        let early = if crate::planted::is("sweep-backwards") {
            Some(Claims::of(&*plane.store).await?)
        } else {
            None
        };
        let machines = match provider.list().await {
            Ok(machines) => machines,
            Err(fault) => {
                tracing::warn!(provider = name, %fault, "cannot list machines");
                continue;
            }
        };
        if machines.is_empty() {
            continue;
        }
        let claims = match early {
            Some(claims) => claims,
            None => Claims::of(&*plane.store).await?,
        };
        for machine in machines.iter().filter(|machine| !claims.machine(machine)) {
            tracing::warn!(provider = name, machine, "destroying a machine that no session claims");
            match provider.destroy(machine).await {
                Ok(()) => {
                    metrics::swept(name);
                    swept += 1;
                }
                Err(fault) => tracing::warn!(provider = name, machine, %fault, "cannot destroy it"),
            }
        }
    }
    Ok(swept)
}
