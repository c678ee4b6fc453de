//! Which version of each bot new sessions get, and how another one takes its place.
//!
//! ```text
//!            asked for               template made, reserve filled
//!   (image) ──────────▶ preparing ──────────────────────────────▶ serving ──▶ finishing ──▶ gone
//!                           │                          the one before ───────────┘
//!                           └── cannot be ──▶ failed: all stays as it was
//! ```
//!
//! A version is the digest of the bot's image (`Provider::version`). It is looked up when the
//! dispatcher starts and when a rollout is asked for, and at no other time: an image that is built
//! anew changes nothing for a dispatcher that runs, so no start pays for a template by surprise.
//! A session's row names its version, and all its machines are made of that one, also after a
//! restart; so a version stays until nobody needs it any more.
//!
//! Nothing here is kept: what is served is what the images are, and what must stay is what the
//! rows of living sessions say.

mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use callbox_core::Time;
use callbox_machines::BotVersion;
use tokio::sync::{Notify, watch};

use crate::plane::Plane;
pub(crate) use work::{begin, run};

/// The digest of a bot's image; none where its provider knows no versions, or the image is not
/// there.
pub type Version = Option<String>;

/// The versions of all bots.
#[derive(Default)]
pub struct Rollouts {
    bots: Mutex<BTreeMap<String, Track>>,
    /// Somebody asked for a rollout.
    asked: Notify,
    /// Held by who prepares a version or takes one away.
    busy: tokio::sync::Mutex<()>,
    /// The versions in whose reserves machines shall wait, by provider.
    tended: Mutex<BTreeMap<String, watch::Sender<Vec<BotVersion>>>>,
}

/// One bot's versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// What new sessions get.
    pub current: Current,
    /// What they will get.
    pub next: Option<Next>,
    /// What they would have got, had it not failed; forgotten when another rollout begins.
    pub failed: Option<Failed>,
    /// What earlier sessions still have, the latest first.
    pub old: Vec<Old>,
    /// Another look at the image is asked for.
    asked: bool,
    /// Starts that have their version and no row yet, by version.
    entering: BTreeMap<Version, usize>,
}

/// The version that new sessions get.
#[derive(Clone, Debug, PartialEq)]
pub struct Current {
    /// Which it is.
    pub version: Version,
    /// Since when it is served.
    pub since: Time,
    /// Why it could not be prepared; its sessions fail with the same words.
    pub trouble: Option<String>,
}

/// A version that is being prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// Which it is; none before it was looked up.
    pub version: Version,
    /// When it was asked for.
    pub since: Time,
    /// What its preparation is at.
    pub stage: String,
    /// Its template is made, and its reserve is being filled.
    filling: bool,
}

/// A version that could not be prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// Which it is; none if not even that could be found out.
    pub version: Version,
    /// When it failed.
    pub at: Time,
    /// Why.
    pub why: String,
}

/// A version that new sessions do not get any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Old {
    /// Which it is.
    pub version: Version,
    /// Since when.
    pub since: Time,
}

/// A start that has its version: it is not taken away before this is dropped.
pub struct Entering {
    plane: Arc<Plane>,
    bot: String,
    version: Version,
}

impl Entering {
    /// The version that the session gets.
    pub fn version(&self) -> &Version {
        &self.version
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        self.plane.rollouts.change(&self.bot, |track| {
            if let Some(count) = track.entering.get_mut(&self.version) {
                *count -= 1;
            }
            track.entering.retain(|_, count| *count > 0);
        });
    }
}

/// The version that a session of this bot gets which is just being accepted.
pub fn enter(plane: &Arc<Plane>, bot: &str) -> Entering {
    let version = plane.rollouts.change(bot, |track| {
        let version = track.current.version.clone();
        *track.entering.entry(version.clone()).or_default() += 1;
        version
    });
    Entering { plane: Arc::clone(plane), bot: bot.to_owned(), version: version.flatten() }
}

/// Has the bot's image looked at anew, and if it is another one, prepared and served. Asked while
/// one is under way, it is looked at once more after that.
pub fn ask(plane: &Plane, bot: &str) {
    let now = plane.clock.now();
    plane.rollouts.change(bot, |track| {
        track.asked = true;
        track.failed = None;
        track.next.get_or_insert_with(|| Next::asked(now));
    });
    plane.rollouts.asked.notify_one();
}

impl Rollouts {
    /// The versions of this bot.
    pub fn of(&self, bot: &str) -> Option<Track> {
        self.bots().get(bot).cloned()
    }

    /// The versions in whose reserves machines of this provider shall wait.
    pub(crate) fn tended(&self, provider: &str) -> Option<watch::Receiver<Vec<BotVersion>>> {
        self.senders().get(provider).map(watch::Sender::subscribe)
    }

    /// Notes why the version that is served could not be prepared, or that it was.
    pub(crate) fn set_trouble(&self, bot: &str, trouble: Option<String>) {
        self.change(bot, |track| track.current.trouble = trouble);
    }

    /// Notes what the preparation of the next version is at.
    pub(crate) fn set_stage(&self, bot: &str, stage: &str) {
        self.change(bot, |track| {
            if let Some(next) = &mut track.next {
                stage.clone_into(&mut next.stage);
            }
        });
    }

    /// All versions of this provider's bots that must stay.
    pub(crate) fn needed(&self, plane: &Plane, provider: &str) -> Vec<BotVersion> {
        self.versions(plane, provider, |track| track.needed())
    }

    /// A bot for which a rollout was asked; it is not, from now on.
    fn next_asked(&self) -> Option<String> {
        let mut bots = self.bots();
        let (name, track) = bots.iter_mut().find(|(_, track)| track.asked)?;
        track.asked = false;
        Some(name.clone())
    }

    /// Tells the providers whose reserves shall be filled.
    fn retend(&self, plane: &Plane) {
        for (provider, tended) in &*self.senders() {
            tended.send_replace(self.to_tend(plane, provider));
        }
    }

    fn to_tend(&self, plane: &Plane, provider: &str) -> Vec<BotVersion> {
        self.versions(plane, provider, |track| track.with_reserve())
    }

    fn versions(
        &self,
        plane: &Plane,
        provider: &str,
        which: impl Fn(&Track) -> BTreeSet<Version>,
    ) -> Vec<BotVersion> {
        let bots = self.bots();
        let of_provider = plane.config.bots.values().filter(|bot| bot.provider == provider);
        of_provider
            .filter_map(|bot| Some((bot, which(bots.get(&bot.name)?))))
            .flat_map(|(bot, versions)| {
                let of = |version| BotVersion { bot: Arc::clone(&bot.machine), version };
                versions.into_iter().map(of)
            })
            .collect()
    }

    fn senders(&self) -> MutexGuard<'_, BTreeMap<String, watch::Sender<Vec<BotVersion>>>> {
        self.tended.lock().expect("no panic while held")
    }

    fn change<T>(&self, bot: &str, change: impl FnOnce(&mut Track) -> T) -> Option<T> {
        self.bots().get_mut(bot).map(change)
    }

    fn bots(&self) -> MutexGuard<'_, BTreeMap<String, Track>> {
        self.bots.lock().expect("no panic while held")
    }
}

impl Next {
    fn asked(since: Time) -> Next {
        Next { version: None, since, stage: "waiting".into(), filling: false }
    }
}

impl Track {
    fn of(version: Version, since: Time) -> Track {
        Track {
            current: Current { version, since, trouble: None },
            next: None,
            failed: None,
            old: Vec::new(),
            asked: false,
            entering: BTreeMap::new(),
        }
    }

    /// Notes that sessions of before have this version.
    fn add_old(&mut self, version: Version, since: Time) {
        let known =
            self.current.version == version || self.old.iter().any(|old| old.version == version);
        if !known {
            self.old.insert(0, Old { version, since });
        }
    }

    /// Serves the version that was prepared.
    fn switch(&mut self, version: Version, now: Time) {
        let before = std::mem::replace(
            &mut self.current,
            Current { version: version.clone(), since: now, trouble: None },
        );
        // One that comes back is old no more.
        self.old.retain(|old| old.version != version);
        self.add_old(before.version, now);
    }

    /// Those in whose reserves machines shall wait.
    fn with_reserve(&self) -> BTreeSet<Version> {
        let filling = self.next.iter().filter(|next| next.filling);
        let next = filling.map(|next| next.version.clone());
        std::iter::once(self.current.version.clone()).chain(next).collect()
    }

    /// All that must stay.
    fn needed(&self) -> BTreeSet<Version> {
        let next = self.next.iter().map(|next| next.version.clone());
        let old = self.old.iter().map(|old| old.version.clone());
        std::iter::once(self.current.version.clone()).chain(next).chain(old).collect()
    }
}
