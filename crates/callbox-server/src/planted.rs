//! Faults of our own that the simulation switches on, to see whether it notices them.
//!
//! Only with the feature `planted`, which nothing but the simulation builds with. Without it every
//! question here is answered no by the compiler.

/// Every fault that can be planted, and what it is.
pub const FAULTS: &[(&str, &str)] = &[
    ("no-intent", "the row that is saved does not say that a machine is wanted"),
    ("no-sweeper", "nobody looks for machines that no session claims"),
    ("sweep-backwards", "the sweep lists sessions before machines"),
    ("no-compare-and-set", "a save does not look whether the row has moved on"),
    ("unknown-is-refused", "a machine whose fate is unknown counts as not made"),
    ("destroy-once", "a failed destroy is not tried again"),
    ("room-not-owed", "the room of an ended session is not closed"),
    ("two-at-once", "the next machine is made before the last one is gone"),
    ("key-not-kept", "an idempotency key is not written down"),
    ("no-timer", "deadlines wake nobody"),
    ("no-take-over", "sessions of a silent dispatcher stay with it"),
    ("no-hold", "a dispatcher that is cut off from the store goes on"),
    ("data-twice", "a machine is given its session's data without asking whether it has it"),
    ("end-not-written", "the end of a session is acknowledged before it is written down"),
    ("safe-after-all", "a start that may have happened is called safe to repeat"),
];

#[cfg(feature = "planted")]
static PLANTED: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Plants a fault in this process, for good.
///
/// # Panics
/// When one is planted already.
#[cfg(feature = "planted")]
pub fn plant(fault: &str) {
    PLANTED.set(fault.to_owned()).expect("one fault a process");
}

/// Whether this fault is planted.
#[cfg(feature = "planted")]
pub(crate) fn is(fault: &str) -> bool {
    debug_assert!(FAULTS.iter().any(|(name, _)| *name == fault), "{fault} is not listed");
    PLANTED.get().is_some_and(|planted| planted == fault)
}

/// Never.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_fault: &str) -> bool {
    false
}
