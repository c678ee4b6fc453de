//! Faults that are planted, in the dispatcher (`callbox_server::planted`) or here.

use std::sync::OnceLock;

/// Those that lie outside of the dispatcher, and what each is.
pub const OURS: &[(&str, &str)] = &[
    ("no-compare-and-set", "a save does not look whether the row has moved on"),
    ("key-not-kept", "an idempotency key is not written down"),
    ("no-dead-man", "machines do not end themselves when no dispatcher is there"),
];

static PLANTED: OnceLock<String> = OnceLock::new();

/// Every fault that there is, with what it is.
pub fn all() -> Vec<(&'static str, &'static str)> {
    callbox_server::planted::FAULTS.iter().chain(OURS).copied().collect()
}

/// Plants one, for good.
///
/// # Errors
/// When there is no such fault, or the dispatcher's were not built in.
pub fn plant(fault: &str) -> anyhow::Result<()> {
    if !all().iter().any(|(name, _)| *name == fault) {
        let known: Vec<&str> = all().iter().map(|(name, _)| *name).collect();
        anyhow::bail!("there is no fault {fault:?} to plant; there are: {}", known.join(", "));
    }
    let _ = PLANTED.set(fault.to_owned());
    #[cfg(feature = "planted")]
    callbox_server::planted::plant(fault);
    #[cfg(not(feature = "planted"))]
    if !OURS.iter().any(|(name, _)| *name == fault) {
        anyhow::bail!("built without the feature `planted`: use `cargo xtask sim`");
    }
    Ok(())
}

fn is(fault: &str) -> bool {
    PLANTED.get().is_some_and(|planted| planted == fault)
}

/// Whether machines live on alone.
pub fn dead_man_off() -> bool {
    is("no-dead-man")
}

/// Whether start keys are forgotten on their way into the store.
pub fn key_not_kept() -> bool {
    is("key-not-kept")
}

/// Whether saves do not look whether the row has moved on.
pub fn no_compare_and_set() -> bool {
    is("no-compare-and-set")
}
