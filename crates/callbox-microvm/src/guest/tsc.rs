//! What the guest must be told of the host's time stamp counter.
//!
//! Under software emulation the guest reads the host's counter but must calibrate it against an
//! emulated timer, and on a busy host that calibration hangs for ever (7-50 % of boots). Told the
//! frequency on its command line (`tsc_early_khz=`), the guest kernel does not calibrate at all.
//!
//! Nor may it check the counter against its ticks (`tsc=reliable`). On a busy host an emulated
//! processor loses ticks; the guest's kernel takes that for a counter that runs too fast, and
//! keeps time by the ticks instead: in steps of 4 ms, and hundreds of milliseconds late after a
//! second of work. Where the host's own counter is not steady, the check stays.

/// The host's time stamp counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tsc {
    /// Its frequency.
    pub khz: u64,
    /// It never changes its pace, nor stops.
    pub steady: bool,
}

/// The counter of this host, or `None` where the host does not tell (no x86).
#[must_use]
pub fn of_host() -> Option<Tsc> {
    from_cpuinfo(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
}

fn from_cpuinfo(text: &str) -> Option<Tsc> {
    let khz = frequency(text)?;
    let flags = text.lines().find(|line| line.starts_with("flags"))?;
    let has = |flag| flags.split_ascii_whitespace().any(|word| word == flag);
    Some(Tsc { khz, steady: has("constant_tsc") && has("nonstop_tsc") })
}

/// On x86, Linux derives bogomips from the counter: two loops per tick, so kHz = bogomips x 500.
fn frequency(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("bogomips"))?;
    let bogomips: f64 = line.split(':').nth(1)?.trim().parse().ok()?;
    // Anything outside 100 MHz - 20 GHz is a number that means something else.
    (200.0..40_000.0).contains(&bogomips).then(|| (bogomips * 500.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_known_by_its_pace_and_its_flags() {
        let text = "processor\t: 0\ncpu MHz\t\t: 1197.4\nbogomips\t: 5199.98\nflags\t\t: fpu tsc\n";
        let tsc = |steady| Some(Tsc { khz: 2_599_990, steady });
        assert_eq!(from_cpuinfo(text), tsc(false));
        let steady = text.replace("fpu", "constant_tsc nonstop_tsc");
        assert_eq!(from_cpuinfo(&steady), tsc(true));
        assert_eq!(from_cpuinfo("bogomips\t: 48.00\nflags\t: x\n"), None, "arm counts otherwise");
        assert_eq!(from_cpuinfo("nothing"), None);
    }
}
