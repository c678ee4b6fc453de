//! The clock. The only place that asks it. A dispatcher's own is [`Clock`], in its plane.
//!
//! Deadlines are moments of the wall clock, because they must mean the same to the next
//! dispatcher. But the wall clock may be set while we run, and an hour forward would end every
//! call at once, an hour back would let none end. So a running dispatcher has a clock of its own:
//! it begins with the wall clock, goes on with the monotonic one, and follows a wall clock that
//! was set by one second in twenty at most.
//!
//! The rows hold times of this clock, so the next dispatcher must go on with it: while it is away
//! from the wall clock, a file in the data directory says how far.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use callbox_core::Time;

/// Of the time that passes, this part may be added or left out to follow the wall clock.
const SLEW: i64 = 20;
/// A wall clock that is so far away was set, and did not merely drift.
const JUMP: Duration = Duration::from_secs(5);

/// Further away, the wall clock was wrong before (a host without a clock wakes up in 1970) and is
/// right now: a new dispatcher begins with it.
const TOO_FAR: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked how far away our clock is.
const LOOK: Duration = Duration::from_secs(2);

static OURS: Mutex<Option<Ours>> = Mutex::new(None);

#[derive(Clone, Copy)]
struct Ours {
    time: Time,
    at: Instant,
    /// A jump was told; not again before the clocks have met.
    told: bool,
}

/// What a dispatcher asks for the time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    /// This process's: see the module's documentation.
    System,
    /// Somebody else's.
    Given(Arc<dyn Fn() -> Time + Send + Sync>),
}

impl Clock {
    /// The clock of this process.
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// One that says what `now` says: for whoever runs several dispatchers in one process, each
    /// with a clock of its own.
    pub fn given(now: impl Fn() -> Time + Send + Sync + 'static) -> Clock {
        Clock(Source::Given(Arc::new(now)))
    }

    /// Now.
    pub fn now(&self) -> Time {
        match &self.0 {
            Source::System => now(),
            Source::Given(now) => now(),
        }
    }

    /// How long from now until `at`.
    pub fn until(&self, at: Time) -> Duration {
        at.since(self.now())
    }

    /// Goes on with the clock of the dispatcher before this one. To be called before rows are
    /// read.
    pub(crate) fn take_up(&self, data_dir: &Path) {
        if let Source::System = self.0 {
            take_up(data_dir);
        }
    }

    /// Writes down how far our clock is away from the wall clock, for [`Clock::take_up`], until it
    /// is dropped.
    pub(crate) async fn keep(self, data_dir: PathBuf) {
        match self.0 {
            Source::System => keep(data_dir).await,
            Source::Given(_) => std::future::pending().await,
        }
    }

    /// Nothing lives whose deadlines hang on our clock: the next dispatcher begins with the
    /// host's.
    pub(crate) fn forget(&self, data_dir: &Path) {
        if let Source::System = self.0 {
            forget(data_dir);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock(system)",
            Source::Given(_) => "Clock(given)",
        })
    }
}

/// Now, by the clock of this process. Never goes back while it runs.
pub fn now() -> Time {
    let mut ours = OURS.lock().expect("no panic while held");
    let (wall, at) = (wall(), Instant::now());
    let before = ours.unwrap_or(Ours { time: wall, at, told: false });
    let time = follow(before.time, at.saturating_duration_since(before.at), wall);
    let away = Duration::from_micros(wall.as_micros().abs_diff(time.as_micros()));
    if away > JUMP && !before.told {
        tracing::warn!(
            seconds = away.as_secs(),
            "the host's clock was set; deadlines follow it slowly"
        );
    }
    *ours = Some(Ours { time, at, told: away > JUMP });
    time
}

/// Our clock after `passed`, drawn towards the wall clock.
fn follow(before: Time, passed: Duration, wall: Time) -> Time {
    let passed = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
    let due = before.as_micros().saturating_add(passed);
    let most = passed / SLEW;
    let correction = wall.as_micros().saturating_sub(due).clamp(-most, most);
    Time::from_micros(due.saturating_add(correction))
}

fn take_up(data_dir: &Path) {
    let away = read(&file(data_dir)).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read how far the clock is away; beginning with the host's");
        0
    });
    if away != 0 {
        let seconds = away / 1_000_000;
        tracing::warn!(seconds, "the host's clock was set earlier; going on with our own");
        let time = Time::from_micros(wall().as_micros().saturating_add(away));
        let begun = Ours { time, at: Instant::now(), told: true };
        *OURS.lock().expect("no panic while held") = Some(begun);
    }
}

async fn keep(data_dir: PathBuf) {
    let file = file(&data_dir);
    let mut written = read(&file).unwrap_or_default();
    loop {
        let away = now().as_micros().saturating_sub(wall().as_micros());
        if let Some(next) = to_write(written, away) {
            match write(&file, next) {
                Ok(()) => written = next,
                Err(error) => {
                    tracing::warn!(%error, "cannot write down how far the clock is away");
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn forget(data_dir: &Path) {
    if let Err(error) = write(&file(data_dir), 0) {
        tracing::warn!(%error, "cannot remove how far the clock is away");
    }
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("clock")
}

/// What to write when `written` is there and our clock is so far `away`, in microseconds.
fn to_write(written: i64, away: i64) -> Option<i64> {
    let jump = JUMP.as_micros();
    let next = if u128::from(away.unsigned_abs()) > jump { away } else { 0 };
    let changed = u128::from(next.abs_diff(written)) > jump || (next == 0 && written != 0);
    changed.then_some(next)
}

fn read(file: &Path) -> io::Result<i64> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        text => text?,
    };
    let away: i64 = text
        .trim()
        .parse()
        .map_err(|_| io::Error::other(format!("{} holds {text:?}, no number", file.display())))?;
    Ok(if u128::from(away.unsigned_abs()) > TOO_FAR.as_micros() { 0 } else { away })
}

fn write(file: &Path, away: i64) -> io::Result<()> {
    if away == 0 {
        return match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let new = file.with_extension("new");
    fs::write(&new, format!("{away}\n"))?;
    fs::rename(new, file)
}

fn wall() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// As it appears on the wire: RFC 3339, UTC, microseconds.
pub fn rfc3339(time: Time) -> String {
    jiff::Timestamp::from_microsecond(time.as_micros())
        .map_or_else(|_| "out of range".into(), |timestamp| format!("{timestamp:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const SECOND: Duration = Duration::from_secs(1);

    fn at(micros: i64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn a_clock_that_is_set_is_followed_slowly_and_time_never_goes_back() {
        for (wall, expected) in [
            (10 * HOUR + 1_000_000, 10 * HOUR + 1_000_000),
            (11 * HOUR, 10 * HOUR + 1_050_000),
            (9 * HOUR, 10 * HOUR + 950_000),
            // A drift is followed at once.
            (10 * HOUR + 1_010_000, 10 * HOUR + 1_010_000),
        ] {
            assert_eq!(follow(at(10 * HOUR), SECOND, at(wall)), at(expected), "wall {wall}");
        }
        assert_eq!(follow(at(HOUR), Duration::ZERO, at(0)), at(HOUR));
    }

    #[test]
    fn it_arrives() {
        let mut ours = at(0);
        for second in 1..=200 {
            ours = follow(ours, SECOND, at(8_000_000 + second * 1_000_000));
        }
        assert_eq!(ours, at(208_000_000));
    }

    #[test]
    fn how_far_it_is_away_is_written_when_it_changes_and_read_again() {
        let second = 1_000_000;
        for (written, away, expected) in [
            (0, 100, None),
            (0, -3600 * second, Some(-3600 * second)),
            (-3600 * second, -3597 * second, None),
            (-3600 * second, -3594 * second, Some(-3594 * second)),
            (7 * second, 4 * second, Some(0)),
            (0, 4 * second, None),
        ] {
            assert_eq!(to_write(written, away), expected, "{written} then {away}");
        }
        let dir = tempfile::tempdir().expect("a directory can be made");
        let file = file(dir.path());
        assert_eq!(read(&file).ok(), Some(0), "no file");
        for (away, expected) in [
            (-3600 * second, -3600 * second),
            (3600 * second, 3600 * second),
            (2 * 24 * HOUR, 0),
            (0, 0),
        ] {
            write(&file, away).expect("it can be written");
            assert_eq!(read(&file).ok(), Some(expected));
        }
        assert!(!file.exists(), "the clocks have met");
        fs::write(&file, "soon").expect("it can be written");
        assert!(read(&file).is_err());
    }

    #[test]
    fn it_goes_forward() {
        let first = now();
        assert!(now() >= first);
    }
}
