//! What callbox made outside and no living session claims is removed: what a crash left, what an
//! unknown outcome made after all.
//!
//! Everything is listed *before* sessions are. A name is saved before the thing is made, so
//! whatever is on a list has its session on the other one, unless nobody claims it.
//!
//! Left alone is what names another deployment, and what is younger than a grace where lists may
//! be stale (`limits.sweep_grace_s`). What a living session claims is its driver's business: a
//! room that it still has to close, a machine that it has to destroy. A session whose row cannot
//! be read claims everything that has its name.
//!
//! What a sweep had to leave (no list came, something was too young or did not go) it looks at
//! again within seconds: a whole interval more would be what a machine costs that nobody wants.

use std::{sync::Arc, time::Duration};

use callbox_core::{Fault, FaultKind, SessionId, Time};
use futures::{StreamExt as _, future::join_all, stream};

use crate::{
    claims::Claims,
    driver::Chain,
    metrics,
    outside::{ANSWER, in_time},
    plane::Plane,
    replica,
    store::{Deployment, StoreError},
};

/// How often, beside once at the start.
pub const EVERY: Duration = Duration::from_secs(60);
/// After a sweep that left something to be done: no list came, something was too young or was not
/// removed. Doubles up to [`EVERY`] as long as the next ones do no better.
const AGAIN: Duration = Duration::from_secs(2);
/// So many things are removed at once: one that is not answered for holds few others up.
const TOGETHER: usize = 8;
/// Who has the processes that carry calls.
const HOST: &str = "host";

/// A kind of thing that is made outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    Relay,
    Machine,
    Room,
}

impl Kind {
    /// As in metrics, logs and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Relay => "relay",
            Kind::Machine => "machine",
            Kind::Room => "room",
        }
    }
}

/// What becomes of something that no living session claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is to be removed.
    Remove,
    /// It is left for a later look.
    Young,
    /// It is somebody else's: the deployment that its label names.
    Others(String),
}

/// Something that no living session claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Who has it: a provider, a transport, or this host.
    pub provider: String,
    /// What it is called there; of a relay or a room, its session.
    pub name: String,
    /// What is to become of it.
    pub fate: Fate,
}

/// What there is outside that no living session claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// In order of kinds.
    pub found: Vec<Found>,
    /// Who did not say what he has, and why: it is looked at again later.
    pub not_listed: Vec<(Kind, String, String)>,
}

/// Sweeps now and from then on.
pub async fn run(plane: Arc<Plane>) {
    if crate::planted::is("no-sweeper") {
        return std::future::pending().await;
    }
    let mut again = AGAIN;
    loop {
        let whole = match sweep(&plane).await {
            Ok(Swept { whole, .. }) => whole,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot sweep, trying again later");
                false
            }
        };
        let pause = if whole { EVERY } else { again };
        again = if whole { AGAIN } else { (again * 2).min(EVERY) };
        let _ = tokio::time::timeout(pause, plane.sweep_wanted()).await;
    }
}

/// What came of a sweep.
struct Swept {
    removed: usize,
    /// Everybody said what he has, and nothing of ours is left that no living session claims.
    whole: bool,
}

async fn sweep(plane: &Plane) -> Result<Swept, StoreError> {
    let survey = look(plane).await?;
    let done = remove(plane, &survey).await;
    let removed = done.iter().filter(|(_, failure)| failure.is_none()).count();
    let young = survey.found.iter().any(|found| found.fate == Fate::Young);
    let whole = survey.not_listed.is_empty() && !young && removed == done.len();
    Ok(Swept { removed, whole })
}

/// Removes what is to be removed; tells how much.
///
/// # Errors
/// When the store does not answer. A provider that does not is reported and passed over.
pub async fn once(plane: &Plane) -> Result<usize, StoreError> {
    Ok(sweep(plane).await?.removed)
}

/// Something on a list.
struct Thing {
    kind: Kind,
    provider: String,
    name: String,
    /// Whose it is; of a machine, only its name says that.
    session: Option<SessionId>,
    deployment: Option<String>,
    made_at: Option<Time>,
    /// Of a machine: what its provider calls it, and which replica has it in reserve.
    id: Option<String>,
    keeper: Option<String>,
}

impl Thing {
    /// `keepers` are the other replicas that live, or did until just now.
    fn is_claimed(&self, claims: &Claims, keepers: &[String]) -> bool {
        let by_id = || self.id.as_ref().is_some_and(|id| claims.machine_id(id));
        // Ours are not on the list as long as we want them.
        let kept = || self.keeper.as_ref().is_some_and(|keeper| keepers.contains(keeper));
        match self.session {
            Some(session) => claims.session(session),
            None => claims.machine(&self.name) || by_id() || kept(),
        }
    }
}

/// The other replicas whose reserves are left alone: one that only starts again finds its machines.
async fn keepers(plane: &Plane) -> Result<Vec<String>, StoreError> {
    let lived = plane.store.replicas(replica::lost_after(&plane.config)).await?;
    let ids = lived.into_iter().map(|replica| replica.id);
    Ok(ids.filter(|id| id != plane.replicas.id()).collect())
}

/// Looks, and touches nothing.
///
/// # Errors
/// When the store does not answer.
pub async fn look(plane: &Plane) -> Result<Survey, StoreError> {
    let mut survey = Survey::default();
    let early = match crate::planted::is("sweep-backwards") {
        true => Some(Claims::of(&*plane.store).await?),
        false => None,
    };
    let things = list(plane, &mut survey).await;
    if things.is_empty() {
        return Ok(survey);
    }
    let claims = match early {
        Some(claims) => claims,
        None => Claims::of(&*plane.store).await?,
    };
    let deployment = plane.store.deployment().await?;
    let keepers = match things.iter().any(|thing| thing.keeper.is_some()) {
        true => keepers(plane).await?,
        false => Vec::new(),
    };
    for thing in things.into_iter().filter(|thing| !thing.is_claimed(&claims, &keepers)) {
        let fate = fate(&thing, &deployment, plane.clock.now(), plane.config.sweep_grace);
        let Thing { kind, provider, name, .. } = thing;
        survey.found.push(Found { kind, provider, name, fate });
    }
    survey.found.sort_by_key(|found| found.kind);
    Ok(survey)
}

fn fate(thing: &Thing, ours: &Deployment, now: Time, grace: Duration) -> Fate {
    match (&thing.deployment, thing.made_at) {
        (Some(theirs), _) if *theirs != ours.id => Fate::Others(theirs.clone()),
        (_, Some(made_at)) if now.since(made_at) < grace => Fate::Young,
        _ => Fate::Remove,
    }
}

async fn list(plane: &Plane, survey: &mut Survey) -> Vec<Thing> {
    let mut things = Vec::new();
    let relays = plane.relays.sessions().into_iter();
    // What is followed is its follower's business.
    for session in relays.filter(|session| !plane.relays.is_followed(*session)) {
        things.push(Thing {
            kind: Kind::Relay,
            provider: HOST.into(),
            name: session.to_string(),
            session: Some(session),
            deployment: None,
            made_at: None,
            id: None,
            keeper: None,
        });
    }
    // Side by side: one who says nothing for long holds the others up no longer than once.
    let machines = plane.providers.iter().map(async |(name, provider)| {
        let listed = in_time(ANSWER, provider.list()).await;
        (*name, listed)
    });
    let rooms = plane.transports.iter().map(async |(name, transport)| {
        let listed = in_time(ANSWER, transport.list()).await;
        (*name, listed)
    });
    let (machines, rooms) = tokio::join!(join_all(machines), join_all(rooms));
    for (name, listed) in machines {
        match listed {
            Ok(machines) => things.extend(machines.into_iter().map(|machine| Thing {
                kind: Kind::Machine,
                provider: name.into(),
                session: None,
                name: machine.name,
                deployment: machine.deployment,
                made_at: machine.made_at,
                id: machine.id,
                keeper: machine.keeper,
            })),
            Err(fault) => survey.pass_over(Kind::Machine, name, &fault),
        }
    }
    for (name, listed) in rooms {
        match listed {
            Ok(rooms) => things.extend(rooms.into_iter().map(|room| Thing {
                kind: Kind::Room,
                provider: name.into(),
                name: room.session.to_string(),
                session: Some(room.session),
                deployment: room.deployment,
                made_at: room.made_at,
                id: None,
                keeper: None,
            })),
            Err(fault) => survey.pass_over(Kind::Room, name, &fault),
        }
    }
    things
}

impl Survey {
    fn pass_over(&mut self, kind: Kind, provider: &str, fault: &Fault) {
        metrics::sweep_list_failed(kind.as_str(), provider);
        tracing::warn!(kind = kind.as_str(), provider, %fault, "cannot list what it has");
        self.not_listed.push((kind, provider.to_owned(), fault.detail.clone()));
    }
}

/// Removes what a look said is to be removed, some at once; tells what, and what became of each
/// that was not.
pub async fn remove<'a>(plane: &Plane, survey: &'a Survey) -> Vec<(&'a Found, Option<String>)> {
    note_what_is_left(plane, survey);
    let mut removals = Vec::new();
    for found in &survey.found {
        if found.fate == Fate::Remove {
            removals.push(remove_and_tell(plane, found));
        }
    }
    stream::iter(removals).buffered(TOGETHER).collect().await
}

async fn remove_and_tell<'a>(plane: &Plane, found: &'a Found) -> (&'a Found, Option<String>) {
    let Found { kind, provider, name, .. } = found;
    let kind = kind.as_str();
    tracing::warn!(kind, provider, name, "removing what no session claims");
    let failure = remove_one(plane, found).await.err();
    if let Some(detail) = &failure {
        tracing::warn!(kind, provider, name, detail, "cannot remove it");
    }
    metrics::swept(kind, provider, if failure.is_none() { "removed" } else { "failed" });
    (found, failure)
}

/// Somebody else's things may be there for ever: they are counted, and not told of every minute.
fn note_what_is_left(plane: &Plane, survey: &Survey) {
    let machines = plane.providers.keys().map(|name| (Kind::Machine, *name));
    let rooms = plane.transports.keys().map(|name| (Kind::Room, *name));
    for (kind, provider) in machines.chain(rooms) {
        let found = || survey.found.iter().filter(|f| f.kind == kind && f.provider == provider);
        let young = found().filter(|found| found.fate == Fate::Young).count();
        let others = found().filter(|found| matches!(found.fate, Fate::Others(_))).count();
        metrics::swept_over(kind.as_str(), provider, "young", young);
        metrics::swept_over(kind.as_str(), provider, "others", others);
    }
    for Found { kind, provider, name, fate } in &survey.found {
        if *fate != Fate::Remove {
            let kind = kind.as_str();
            tracing::debug!(kind, provider, name, ?fate, "left alone, though no session claims it");
        }
    }
}

async fn remove_one(plane: &Plane, found: &Found) -> Result<(), String> {
    let gone = |fault: Fault| match fault.kind {
        // A list that was stale.
        FaultKind::NotFound => Ok(()),
        _ => Err(fault.detail),
    };
    let session = || SessionId::parse(&found.name).ok_or("it names no session");
    match found.kind {
        Kind::Relay => match plane.relays.retire(session()?).await {
            true => Ok(()),
            false => Err("its process does not end".into()),
        },
        Kind::Machine => {
            let provider = plane.providers.get(found.provider.as_str());
            let provider = provider.ok_or("no such provider")?;
            in_time(ANSWER, provider.destroy(&found.name)).await.or_else(gone)
        }
        Kind::Room => {
            let transport = plane.transports.get(found.provider.as_str());
            let transport = transport.ok_or("no such transport")?;
            in_time(ANSWER, transport.close(session()?)).await.or_else(gone)
        }
    }
}
