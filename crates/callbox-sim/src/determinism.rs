//! Everything from one seed: what this process takes for random numbers and for the time.
//!
//! `select!` and every `HashMap` draw from the system, as do the ids of sessions, and a clock may
//! be asked anywhere below us. All of them end at two functions of libc, and a program may bring
//! its own: the linker takes these, and those who look the symbol up at run time find them, too.
//! Until [`begin`] is called they do what libc's do.
//!
//! tokio has a counter that goes on from runtime to runtime, so a seed has a process of its own.
//!
//! The only unsafe code of the simulation. `tests/it` holds it to its word.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use libc::{c_int, c_uint, c_void, clockid_t, size_t, ssize_t, timespec};

use crate::dice::mix;

/// What the simulated clocks say at the beginning: a moment in November 2023.
pub const BEGINNING: u64 = 1_700_000_000_000_000_000;

static ON: AtomicBool = AtomicBool::new(false);
static STATE: AtomicU64 = AtomicU64::new(0);
static NOW: AtomicU64 = AtomicU64::new(BEGINNING);

/// From here on this process has no randomness but that of `seed`, and no time but
/// [`set_time`]'s.
pub fn begin(seed: u64) {
    STATE.store(mix(seed), SeqCst);
    ON.store(true, SeqCst);
}

/// What time it is, in nanoseconds since the beginning.
pub fn set_time(since: u64) {
    NOW.store(BEGINNING + since, SeqCst);
}

fn next() -> u64 {
    mix(STATE.fetch_add(0x9e37_79b9_7f4a_7c15, SeqCst))
}

/// libc's, with numbers that only look random.
///
/// # Safety
/// `buffer` must have room for `length` bytes, as with libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    if !ON.load(SeqCst) {
        // SAFETY: the arguments are passed on as they came.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return got as ssize_t;
    }
    let mut left = length;
    let mut to = buffer.cast::<u8>();
    while left > 0 {
        let some = next().to_ne_bytes();
        let count = left.min(some.len());
        // SAFETY: `to` has room for `left` bytes, and `count` is not more than that.
        unsafe {
            std::ptr::copy_nonoverlapping(some.as_ptr(), to, count);
            to = to.add(count);
        }
        left -= count;
    }
    length as ssize_t
}

/// libc's, with a time that only passes when [`set_time`] says so.
///
/// # Safety
/// `out` must be good to be written, as with libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: clockid_t, out: *mut timespec) -> c_int {
    if !ON.load(SeqCst) {
        // SAFETY: the arguments are passed on as they came.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) } as c_int;
    }
    let now = NOW.load(SeqCst);
    let (tv_sec, tv_nsec) = ((now / 1_000_000_000) as i64, (now % 1_000_000_000) as i64);
    // SAFETY: the caller promises that it can be written.
    unsafe { out.write(timespec { tv_sec, tv_nsec }) };
    0
}
