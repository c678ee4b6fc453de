//! Leases (fly.md section 3.3). A machine of one session needs none; a reserve that several
//! replicas claim from may.

use std::time::Duration;

use reqwest::Method;

use super::Client;
#[cfg(doc)]
use crate::ErrorKind;
use crate::wire::{Lease, LeaseAnswer, LeaseRequest};
use crate::{Action, Error};

/// The header by which a lease's holder is known.
pub(super) const NONCE: &str = "fly-machine-lease-nonce";

impl Client {
    /// Takes a machine's lease for `ttl`, or with its `nonce`, keeps it longer. Held by
    /// somebody else: [`ErrorKind::LeaseHeld`].
    pub async fn acquire_lease(
        &self,
        app: &str,
        id: &str,
        ttl: Duration,
        nonce: Option<&str>,
        limit: Duration,
    ) -> Result<Lease, Error> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let body = LeaseRequest { ttl: Some(seconds), description: None };
        let call = self.on(Action::AcquireLease, Method::POST, app, id, &["lease"]);
        // In the body, as the specification has it, and in the query, as fly-go has it.
        let call = call.query("ttl", &seconds.to_string()).header(NONCE, nonce).json(&body)?;
        self.read::<LeaseAnswer>(call, limit).await.map(|answer| answer.data)
    }

    /// A machine's lease; nobody holds it: [`ErrorKind::NotFound`].
    pub async fn lease(&self, app: &str, id: &str, limit: Duration) -> Result<Lease, Error> {
        let call = self.on(Action::GetLease, Method::GET, app, id, &["lease"]);
        self.read::<LeaseAnswer>(call, limit).await.map(|answer| answer.data)
    }

    /// Gives a lease back.
    pub async fn release_lease(
        &self,
        app: &str,
        id: &str,
        nonce: &str,
        limit: Duration,
    ) -> Result<(), Error> {
        let call = self.on(Action::ReleaseLease, Method::DELETE, app, id, &["lease"]);
        self.done(call.header(NONCE, Some(nonce)), limit).await
    }
}
