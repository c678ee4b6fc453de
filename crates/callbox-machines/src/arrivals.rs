//! Where agents are met that dial us (`callbox_protocol::join`).
//!
//! Two sides come together here by a machine's name: whoever accepts the connection, which may come
//! at any time, and the provider, which waits for the link. What came and is not waited for stays
//! until it is, or another one comes in its place.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use callbox_link::{Carrier, Link, LinkError};
use callbox_protocol::join::Rejoin;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::watch;

/// See the module's documentation.
pub struct Arrivals {
    secret: Vec<u8>,
    machines: Mutex<BTreeMap<String, Arc<Spot>>>,
}

/// One machine's place.
#[derive(Default)]
struct Spot {
    /// The process that used the machine's first token here.
    first: Mutex<Option<String>>,
    /// The connection that nobody has taken, with the process at its other end.
    waiting: Mutex<Option<(Carrier, String)>>,
    /// Counts what came.
    came: watch::Sender<u64>,
}

/// Why a process may not connect as a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Neither the machine's first token nor this process's own.
    #[error("this token does not open this machine's place")]
    Token,
    /// The first token is good once, and only until the machine has started.
    #[error("another process was here before with this token, or it is too late for it")]
    Late,
}

impl Arrivals {
    /// With a secret that all replicas share.
    pub fn new(secret: impl Into<Vec<u8>>) -> Arrivals {
        Arrivals { secret: secret.into(), machines: Mutex::default() }
    }

    /// What opens a machine's first connection, for its configuration at its provider.
    pub fn first_token(&self, machine: &str) -> String {
        hex::encode(self.mac("first", machine, "").finalize().into_bytes())
    }

    /// What opens the next connections of the process that `boot` names.
    fn next_token(&self, machine: &str, boot: &str) -> String {
        hex::encode(self.mac("next", machine, boot).finalize().into_bytes())
    }

    /// Checks whether the process that `boot` names may connect as this machine. The first one that
    /// comes with the first token is remembered, and `has_started` says that one came long ago.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn admit(
        &self,
        machine: &str,
        token: &str,
        boot: &str,
        has_started: bool,
    ) -> Result<(), Denied> {
        let token = hex::decode(token).map_err(|_| Denied::Token)?;
        if self.mac("next", machine, boot).verify_slice(&token).is_ok() {
            let spot = self.machines().get(machine).map(Arc::clone);
            let first = spot.and_then(|spot| spot.first.lock().expect("no panic").clone());
            // A session whose dispatcher died while it took a machine of a reserve may have two:
            // whichever was spoken to here is it.
            return match first {
                Some(known) if known != boot => Err(Denied::Late),
                _ => Ok(()),
            };
        }
        self.mac("first", machine, "").verify_slice(&token).map_err(|_| Denied::Token)?;
        let spot = self.spot(machine);
        let mut first = spot.first.lock().expect("no panic while held");
        match &*first {
            _ if has_started => Err(Denied::Late),
            Some(known) if known != boot => Err(Denied::Late),
            _ => {
                *first = Some(boot.to_owned());
                Ok(())
            }
        }
    }

    /// A connection of a process that was admitted. It takes the place of one that nobody took.
    pub fn arrive(&self, machine: &str, boot: &str, carrier: Carrier) {
        let spot = self.spot(machine);
        *spot.waiting.lock().expect("no panic while held") = Some((carrier, boot.to_owned()));
        spot.came.send_modify(|count| *count += 1);
    }

    /// Waits for the machine's next connection: a link whose other end has been told what opens the
    /// one after it. Whoever calls this again gives the link before it up.
    pub async fn link(&self, machine: &str) -> Link {
        self.link_of(machine).await.0
    }

    /// The same, with the process at its other end.
    pub(crate) async fn link_of(&self, machine: &str) -> (Link, String) {
        let spot = self.spot(machine);
        let mut came = spot.came.subscribe();
        loop {
            came.mark_unchanged();
            let waiting = spot.waiting.lock().expect("no panic while held").take();
            let Some((carrier, boot)) = waiting else {
                // The sender is a part of the place that we hold.
                let _ = came.changed().await;
                continue;
            };
            let opened = tokio::select! {
                opened = self.open(machine, &boot, carrier) => opened,
                // It dials again because this one is dead, whether we know it or not.
                _ = came.changed() => continue,
            };
            match opened {
                Ok(link) => {
                    *spot.first.lock().expect("no panic while held") = Some(boot.clone());
                    return (link, boot);
                }
                Err(error) => tracing::warn!(machine, %error, "an agent came and went"),
            }
        }
    }

    async fn open(&self, machine: &str, boot: &str, carrier: Carrier) -> Result<Link, LinkError> {
        let link = Link::open(carrier).await?;
        let token = self.next_token(machine, boot);
        link.rejoin(&Rejoin { token, ..Rejoin::default() }).await?;
        Ok(link)
    }

    /// The machine may be suspended when this connection has ended: it dials in short steps then.
    pub(crate) async fn expect_sleep(
        &self,
        link: &Link,
        machine: &str,
        boot: &str,
    ) -> Result<(), LinkError> {
        let token = self.next_token(machine, boot);
        link.rejoin(&Rejoin { token, machine: None, eager: true }).await
    }

    /// Gives the machine at the other end another name: that of the session which took it out of
    /// a reserve. It comes back under that one only, and with a token for it.
    pub(crate) async fn rename(&self, link: &Link, boot: &str, to: &str) -> Result<(), LinkError> {
        let (token, machine) = (self.next_token(to, boot), Some(to.to_owned()));
        link.rejoin(&Rejoin { token, machine, eager: false }).await?;
        *self.spot(to).first.lock().expect("no panic while held") = Some(boot.to_owned());
        Ok(())
    }

    /// The machine is gone.
    pub fn forget(&self, machine: &str) {
        self.machines().remove(machine);
    }

    fn spot(&self, machine: &str) -> Arc<Spot> {
        Arc::clone(self.machines().entry(machine.to_owned()).or_default())
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Spot>>> {
        self.machines.lock().expect("no panic while held")
    }

    fn mac(&self, what: &str, machine: &str, boot: &str) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        // Neither a name of ours nor an id of theirs has a zero byte.
        for part in ["callbox machine", what, machine, boot] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac
    }
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").field("machines", &self.machines().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use callbox_link::fake::{FakeAgent, Script};
    use tokio::time::timeout;

    use super::*;

    const BOOT: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";
    const OTHER: &str = "1f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

    #[test]
    fn the_first_token_is_for_one_process_before_the_start() {
        let arrivals = Arrivals::new("secret");
        let first = arrivals.first_token("cb-1");
        let admit = |token: &str, boot, started| arrivals.admit("cb-1", token, boot, started);
        assert_eq!(admit("", BOOT, false), Err(Denied::Token));
        assert_eq!(admit(&arrivals.first_token("cb-2"), BOOT, false), Err(Denied::Token));
        assert_eq!(Arrivals::new("x").admit("cb-1", &first, BOOT, false), Err(Denied::Token));
        assert_eq!(admit(&first, BOOT, true), Err(Denied::Late), "started");
        assert_eq!(admit(&first, BOOT, false), Ok(()));
        assert_eq!(admit(&first, BOOT, false), Ok(()), "its connection broke in between");
        assert_eq!(admit(&first, OTHER, false), Err(Denied::Late));
        let next = arrivals.next_token("cb-1", BOOT);
        assert_eq!(admit(&next, BOOT, true), Ok(()));
        assert_eq!(admit(&next, OTHER, true), Err(Denied::Token));
        assert_eq!(Arrivals::new("secret").admit("cb-1", &next, BOOT, true), Ok(()), "elsewhere");
    }

    #[tokio::test]
    async fn whoever_comes_first_the_two_meet() {
        let (arrivals, agent) = (Arrivals::new("secret"), FakeAgent::new(Script::default()));
        // The agent first; and what is dead by then is passed over.
        arrivals.arrive("cb-1", BOOT, Box::new(tokio::io::empty()));
        arrivals.arrive("cb-1", BOOT, agent.carrier());
        let link = arrivals.link("cb-1").await;
        link.health().await.unwrap();
        assert_eq!(agent.seen().rejoin[0].token, arrivals.next_token("cb-1", BOOT));

        // The provider first, with a connection that says nothing in between.
        let (silent, _held) = tokio::io::duplex(64);
        let (again, ()) = tokio::join!(arrivals.link("cb-1"), async {
            tokio::task::yield_now().await;
            arrivals.arrive("cb-1", BOOT, Box::new(silent));
            tokio::task::yield_now().await;
            arrivals.arrive("cb-1", BOOT, agent.carrier());
        });
        again.health().await.unwrap();
        let nobody = timeout(Duration::from_millis(50), arrivals.link("cb-2"));
        assert!(nobody.await.is_err());
        arrivals.forget("cb-1");
    }

    #[tokio::test]
    async fn a_machine_of_a_reserve_comes_back_as_its_sessions_and_alone() {
        let (arrivals, agent) = (Arrivals::new("secret"), FakeAgent::new(Script::default()));
        arrivals.arrive("cbr-1", BOOT, agent.carrier());
        let (link, boot) = arrivals.link_of("cbr-1").await;
        arrivals.expect_sleep(&link, "cbr-1", &boot).await.unwrap();
        arrivals.rename(&link, &boot, "cb-1").await.unwrap();
        let told = agent.seen().rejoin;
        let names: Vec<_> = told.iter().map(|told| (told.machine.as_deref(), told.eager)).collect();
        assert_eq!(names, [(None, false), (None, true), (Some("cb-1"), false)]);
        let admit = |token: &str, boot| arrivals.admit("cb-1", token, boot, true);
        assert_eq!(admit(&told[2].token, BOOT), Ok(()));
        assert_eq!(admit(&told[1].token, BOOT), Err(Denied::Token), "that was another name");
        let second = arrivals.next_token("cb-1", OTHER);
        assert_eq!(admit(&second, OTHER), Err(Denied::Late), "one machine at a time");
        assert_eq!(Arrivals::new("secret").admit("cb-1", &second, OTHER, true), Ok(()));
    }
}
