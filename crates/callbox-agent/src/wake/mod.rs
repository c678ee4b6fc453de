//! Making a clone itself.
//!
//! ```text
//! kernel ──► clock ──► names ──► the bot's own process ──► acknowledged
//! ```
//!
//! In this order, because each builds on those before: the bot draws from the kernel while it
//! reseeds, and its hooks may look at the time and at the machine's names. Side by side would
//! gain nothing on the one processor that there is. Whatever fails, the wake fails.

pub(crate) mod clock;
mod command;
mod hook;
pub(crate) mod names;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use callbox_protocol::agent::{Awake, BotWake, Contract, Phase, Reseed, Wake};
use sha2::{Digest, Sha256};

use crate::kernel;
use crate::machine::Machine;
use crate::place::Kind;
use crate::refusal::Refusal;

/// Fewest bytes of entropy that make a machine different: 256 bits.
const MIN_ENTROPY: usize = 32;

/// Makes the machine different from its template, and has the bot do the same. Succeeds only
/// if everything did. May come again as long as there is no session: after an answer that the
/// host did not see, and for a machine that was kept in reserve.
pub(crate) async fn wake(
    machine: &Arc<Machine>,
    wake: Wake,
    came_at: Instant,
) -> Result<Awake, Refusal> {
    let _turn = machine.begin("wake", &[Phase::Prepared, Phase::Frozen, Phase::Awake])?;
    let checked = Checked::new(&wake)?;
    let mut watch = Watch::new();
    let undone =
        |what: &str, error: std::io::Error| Refusal::not_reseeded(format!("{what}: {error}"));
    let not_random = |error| undone("the kernel's generator was not reseeded", error);
    let wrong_clock = |error| undone("the clock was not set", error);
    match machine.place.kind {
        Kind::Init => {
            kernel::reseed_kernel(&checked.secret).map_err(not_random)?;
            watch.mark("kernel");
            clock::set(checked.hosts_clock, came_at).map_err(wrong_clock)?;
            watch.mark("clock");
            names::renew(&machine.place.run_dir, &wake.hostname, &wake.generation_id)
                .map_err(|error| undone("the machine has its template's names", error))?;
            watch.mark("names");
        }
        // It is no clone: its numbers and names are its own, and stay so when it was asleep.
        Kind::Joined(_) => {
            kernel::stir(&checked.secret).map_err(not_random)?;
            watch.mark("kernel");
            clock::keep(checked.hosts_clock, came_at).map_err(wrong_clock)?;
            watch.mark("clock");
        }
        Kind::Process => {}
    }
    // Of others' machines nothing was renamed, and a network's delay would look like a late clock.
    let is_others = matches!(machine.place.kind, Kind::Joined(_));
    let reseeded = wake_bot(machine, &wake.generation_id, &checked.secret).await?;
    watch.mark("bot");
    machine.advance(Phase::Awake);
    Ok(Awake {
        generation_id: wake.generation_id,
        kernel_reseeded: true,
        clock_set: true,
        bot_reseeded: reseeded.as_ref().map(|_| true),
        names_renewed: (!is_others).then_some(true),
        unix_ns: (!is_others).then(clock::now),
        reseeded: reseeded.unwrap_or_default(),
        took_us: watch.took_us,
    })
}

/// Has the bot's process reseed its own generators, where its contract asks for it. Says what
/// it reseeded.
async fn wake_bot(
    machine: &Arc<Machine>,
    generation_id: &str,
    secret: &[u8],
) -> Result<Option<Vec<String>>, Refusal> {
    let Some(prepare) = machine.prepared() else {
        return Ok(None);
    };
    let Contract::Http { reseed } = &prepare.contract else {
        return Ok(None);
    };
    let wake =
        BotWake { generation_id: generation_id.to_owned(), entropy: derive(secret, generation_id) };
    let outcome = match reseed {
        Reseed::Kernel => return Ok(None),
        Reseed::Hook => hook::ask(prepare.port, &wake).await,
        Reseed::Command { argv } => command::run(machine, &prepare, argv, &wake).await,
    };
    outcome
        .map(Some)
        .map_err(|problem| Refusal::not_reseeded(format!("the bot did not reseed: {problem}")))
}

/// A secret for the bot that tells nothing about the kernel's.
fn derive(secret: &[u8], generation_id: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"callbox: entropy for the bot's process\0");
    hash.update(generation_id.as_bytes());
    hash.update(secret);
    hex::encode(hash.finalize())
}

/// What a wake brings, in the forms that are needed.
struct Checked {
    secret: Vec<u8>,
    hosts_clock: i128,
}

impl Checked {
    fn new(wake: &Wake) -> Result<Self, Refusal> {
        let is_id = hex::decode(&wake.generation_id).is_ok_and(|id| id.len() == 16);
        if !is_id {
            return Err(Refusal::bad_request("generation_id must be 32 hex digits"));
        }
        let secret = hex::decode(&wake.entropy).unwrap_or_default();
        if secret.len() < MIN_ENTROPY {
            let message = format!("entropy must be at least {MIN_ENTROPY} bytes as hex");
            return Err(Refusal::bad_request(message));
        }
        let hosts_clock = clock::parse(&wake.unix_ns)?;
        Ok(Self { secret, hosts_clock })
    }
}

/// Measures parts that follow one another. Not by the wall clock, which is set among them.
struct Watch {
    last: Instant,
    took_us: BTreeMap<String, u64>,
}

impl Watch {
    fn new() -> Self {
        Self { last: Instant::now(), took_us: BTreeMap::new() }
    }

    fn mark(&mut self, part: &str) {
        let took = self.last.elapsed();
        self.last += took;
        self.took_us.insert(part.to_owned(), took.as_micros() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bots_secret_is_its_own() {
        let (one, two) = (derive(&[1; 64], "a"), derive(&[1; 64], "b"));
        assert_eq!(one.len(), 64);
        assert_ne!(one, two);
        assert_ne!(one, hex::encode(Sha256::digest([1; 64])));
    }

    #[test]
    fn a_wake_is_checked_without_repeating_its_secret() {
        let mut wake = Wake {
            generation_id: "0f".repeat(16),
            entropy: "ab".repeat(64),
            unix_ns: "1700000000123456789".to_owned(),
            hostname: "x".to_owned(),
        };
        let checked = Checked::new(&wake).map_err(|refusal| refusal.error).expect("good");
        assert_eq!(checked.hosts_clock, 1_700_000_000_123_456_789);
        wake.entropy = "secret".to_owned();
        let refusal = Checked::new(&wake).err().expect("bad");
        assert!(!refusal.error.message.contains("secret"));
    }
}
