//! Faults of our own that the simulation switches on, to see whether it notices them.
//!
//! Only with the feature `planted`, which nothing but the simulation builds with. Without it every
//! question here is answered no by the compiler.

/// Every fault that can be planted, and what it is.
pub const FAULTS: &[(&str, &str)] = &[
    ("no-intent", "the machine is bought before its session is saved"),
    ("unknown-is-refused", "a machine whose fate is unknown counts as not made"),
    ("destroy-once", "a destroy that failed is not tried again"),
    ("two-at-once", "the next machine is wanted before the last one is gone"),
    ("room-not-owed", "the room of a session that ends is not closed"),
    ("no-sweeper", "nobody looks for what no session claims"),
    ("sweep-backwards", "the sweep lists sessions before machines"),
    ("no-timer", "deadlines wake nobody"),
    ("no-resume", "a dispatcher that comes back does not take up what it drove"),
    ("no-take-over", "sessions of a silent dispatcher stay with it"),
    ("no-hold", "a dispatcher that is cut off from the store goes on"),
    ("end-not-written", "an end is acknowledged before it is written down"),
    ("said-to-be-safe", "a start that may have happened is called safe to repeat"),
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
