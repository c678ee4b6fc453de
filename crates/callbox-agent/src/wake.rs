//! Making a clone itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use callbox_protocol::agent::{Awake, BOT_WAKE_PATH, Contract, Phase, Reseed, Wake};
use http::Method;
use rustix::time::{ClockId, Timespec, clock_settime};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::kernel;
use crate::loopback;
use crate::machine::Machine;
use crate::refusal::Refusal;

/// How long the bot may take to reseed itself.
const HOOK_PATIENCE: Duration = Duration::from_secs(10);
/// Fewest bytes of entropy that make a machine different: 256 bits.
const MIN_ENTROPY: usize = 32;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Makes the machine different from its template, and has the bot do the same. Succeeds only
/// if everything did.
pub(crate) async fn wake(machine: &Arc<Machine>, wake: Wake) -> Result<Awake, Refusal> {
    // Again after an answer that the host did not see, as long as there is no session.
    let _turn = machine.begin("wake", &[Phase::Prepared, Phase::Frozen, Phase::Awake])?;
    let checked = Checked::new(&wake)?;
    if machine.place.in_machine {
        kernel::reseed_kernel(&checked.secret).map_err(|error| {
            Refusal::not_reseeded(format!("the kernel's generator was not reseeded: {error}"))
        })?;
        clock_settime(ClockId::Realtime, checked.now)
            .map_err(|error| Refusal::internal(format!("the clock was not set: {error}")))?;
        for (what, done) in [
            ("the host name was not set", set_hostname(&wake.hostname)),
            ("the machine id was not renewed", renew_machine_id(&wake.generation_id)),
            ("the boot id was not renewed", renew_boot_id(&machine.place.run_dir)),
        ] {
            // Names, not randomness: a machine without them is still itself.
            if let Err(error) = done {
                machine.logs.say(&format!("{what}: {error}"));
            }
        }
    }
    let bot_reseeded = wake_bot(machine, &wake.generation_id, &checked.secret).await?;
    machine.advance(Phase::Awake);
    Ok(Awake {
        generation_id: wake.generation_id,
        kernel_reseeded: true,
        clock_set: true,
        bot_reseeded,
    })
}

/// What a wake brings, in the forms that are needed.
struct Checked {
    secret: Vec<u8>,
    now: Timespec,
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
        let nanoseconds: i128 = wake
            .unix_ns
            .parse()
            .map_err(|_| Refusal::bad_request("unix_ns must be a decimal number"))?;
        const SECOND: i128 = 1_000_000_000;
        let now = Timespec {
            tv_sec: i64::try_from(nanoseconds / SECOND).unwrap_or_default(),
            tv_nsec: (nanoseconds % SECOND) as i64,
        };
        Ok(Self { secret, now })
    }
}

/// Has the bot's process reseed its own generators, where its contract asks for it.
async fn wake_bot(
    machine: &Arc<Machine>,
    generation_id: &str,
    secret: &[u8],
) -> Result<Option<bool>, Refusal> {
    let Some(prepare) = machine.prepared() else {
        return Ok(None);
    };
    let hook = Contract::Http { reseed: Reseed::Hook };
    if prepare.contract != hook {
        return Ok(None);
    }
    let body = serde_json::json!({
        "generation_id": generation_id,
        "entropy": derive(secret, generation_id),
    });
    let body = body.to_string().into_bytes();
    let asking = loopback::ask(prepare.port, Method::POST, BOT_WAKE_PATH, &[], body);
    let outcome = match timeout(HOOK_PATIENCE, asking).await {
        Ok(Ok((200, _))) => return Ok(Some(true)),
        Ok(Ok((status, _))) => format!("answers {status}"),
        Ok(Err(error)) => format!("fails: {error}"),
        Err(_) => format!("does not answer within {} s", HOOK_PATIENCE.as_secs()),
    };
    let message = format!("the bot did not reseed: POST {BOT_WAKE_PATH} {outcome}");
    Err(Refusal::not_reseeded(message))
}

/// A secret for the bot that tells nothing about the kernel's.
fn derive(secret: &[u8], generation_id: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"callbox: entropy for the bot's process\0");
    hash.update(generation_id.as_bytes());
    hash.update(secret);
    hex::encode(hash.finalize())
}

fn set_hostname(name: &str) -> io::Result<()> {
    rustix::system::sethostname(name.as_bytes())?;
    fs::write("/etc/hostname", format!("{name}\n"))?;
    let mut hosts = OpenOptions::new().append(true).create(true).open("/etc/hosts")?;
    writeln!(hosts, "127.0.0.1 {name}")
}

fn renew_machine_id(generation_id: &str) -> io::Result<()> {
    fs::write("/etc/machine-id", format!("{generation_id}\n"))
}

/// The kernel draws its boot id once, so all clones have their template's. A file of our own
/// takes its place.
fn renew_boot_id(run_dir: &Path) -> io::Result<()> {
    let mut id = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut id)?;
    let path = run_dir.join("boot_id");
    fs::write(&path, format!("{}\n", uuid(id)))?;
    rustix::mount::mount_bind(&path, BOOT_ID)?;
    Ok(())
}

/// A random UUID (version 4) from 16 random bytes.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
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
    fn ids_look_like_the_kernels() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
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
        assert_eq!((checked.now.tv_sec, checked.now.tv_nsec), (1_700_000_000, 123_456_789));
        wake.entropy = "secret".to_owned();
        let refusal = Checked::new(&wake).err().expect("bad");
        assert!(!refusal.error.message.contains("secret"));
    }
}
