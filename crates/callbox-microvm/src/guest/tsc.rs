//! How fast the host's time stamp counter runs.
//!
//! Under software emulation the guest reads the host's counter but must calibrate it against an
//! emulated timer, and on a busy host that calibration hangs for ever (7-50 % of boots). Told the
//! frequency on its command line (`tsc_early_khz=`), the guest kernel does not calibrate at all.

/// The frequency in kHz, or `None` where the host does not tell (no x86).
#[must_use]
pub fn host_khz() -> Option<u64> {
    from_cpuinfo(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
}

/// On x86, Linux derives bogomips from the counter: two loops per tick, so kHz = bogomips x 500.
fn from_cpuinfo(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("bogomips"))?;
    let bogomips: f64 = line.split(':').nth(1)?.trim().parse().ok()?;
    // Anything outside 100 MHz - 20 GHz is a number that means something else.
    (200.0..40_000.0).contains(&bogomips).then(|| (bogomips * 500.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bogomips_tell_the_frequency() {
        let text = "processor\t: 0\ncpu MHz\t\t: 1197.4\nbogomips\t: 5199.98\nflags\t\t: tsc\n";
        assert_eq!(from_cpuinfo(text), Some(2_599_990));
        assert_eq!(from_cpuinfo("bogomips\t: 48.00\n"), None, "an arm host counts otherwise");
        assert_eq!(from_cpuinfo("nothing"), None);
    }
}
