//! Durations as Go writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration on this wire: a Go string such as `"30s"` or `"1m30s"`.
///
/// A bare number is **nanoseconds** (fly.md section 2.2, fly-go `duration.go`), so we never
/// write one; it is read as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(pub Duration);

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no duration such as \"30s\" or \"1m30s\"")]
pub struct NoDuration(String);

impl FromStr for GoDuration {
    type Err = NoDuration;

    fn from_str(text: &str) -> Result<GoDuration, NoDuration> {
        parse(text).map(GoDuration).ok_or_else(|| NoDuration(text.to_owned()))
    }
}

/// The grammar of Go's `time.ParseDuration`, without negative ones, which make no sense here.
fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanos = 0.0_f64;
    let mut parts = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        rest = &rest[end..];
        nanos += number * unit;
        parts += 1;
    }
    // Go's durations are 63 bits of nanoseconds.
    if parts == 0 || !nanos.is_finite() || nanos >= i64::MAX as f64 {
        return None;
    }
    Some(Duration::from_nanos(nanos.round() as u64))
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let (hours, rest) = (nanos / 3_600_000_000_000, nanos % 3_600_000_000_000);
        let (minutes, rest) = (rest / 60_000_000_000, rest % 60_000_000_000);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        match (rest / 1_000_000_000, rest % 1_000_000_000) {
            (0, 0) => Ok(()),
            (seconds, 0) => write!(f, "{seconds}s"),
            (0, part) if part % 1_000_000 == 0 => write!(f, "{}ms", part / 1_000_000),
            (0, part) if part % 1_000 == 0 => write!(f, "{}us", part / 1_000),
            (0, part) => write!(f, "{part}ns"),
            (seconds, part) => {
                let fraction = format!("{part:09}");
                write!(f, "{seconds}.{}s", fraction.trim_end_matches('0'))
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<GoDuration, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = GoDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"30s\", or nanoseconds")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<GoDuration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, nanos: u64) -> Result<GoDuration, E> {
                Ok(GoDuration(Duration::from_nanos(nanos)))
            }

            fn visit_i64<E: Error>(self, nanos: i64) -> Result<GoDuration, E> {
                u64::try_from(nanos).map_err(E::custom).and_then(|nanos| self.visit_u64(nanos))
            }

            fn visit_f64<E: Error>(self, nanos: f64) -> Result<GoDuration, E> {
                if (0.0..i64::MAX as f64).contains(&nanos) {
                    return self.visit_u64(nanos as u64);
                }
                Err(E::custom("a duration below nothing"))
            }
        }
        from.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Option<Duration> {
        serde_json::from_value::<GoDuration>(value).ok().map(|duration| duration.0)
    }

    #[test]
    fn strings_are_gos_and_numbers_are_nanoseconds() {
        for (value, millis) in [
            (json!("30s"), 30_000),
            (json!("1m30s"), 90_000),
            (json!("1.5s"), 1_500),
            (json!("250ms"), 250),
            (json!("1h"), 3_600_000),
            (json!("0"), 0),
            (json!("0s"), 0),
            (json!(30_000_000_000_u64), 30_000),
            (json!(30_000_000_000.0), 30_000),
        ] {
            assert_eq!(read(value.clone()), Some(Duration::from_millis(millis)), "{value}");
        }
        // The trap: a number that somebody meant as seconds.
        assert_eq!(read(json!(30)), Some(Duration::from_nanos(30)));
    }

    #[test]
    fn what_is_none_is_refused() {
        for value in [
            json!(""),
            json!("30"),
            json!("s"),
            json!("-5s"),
            json!(-5),
            json!("5 s"),
            json!("5d"),
            json!("1.2.3s"),
            json!("99999999999h"),
            json!(null),
            json!({"time.Duration": 5}),
        ] {
            assert_eq!(read(value.clone()), None, "{value}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for text in ["0s", "30s", "1m30s", "2h", "1h0.5s", "250ms", "3us", "7ns", "1.000000001s"] {
            let duration: GoDuration = text.parse().expect("a duration");
            let written = duration.to_string();
            assert_eq!(written.parse(), Ok(duration), "{text} became {written}");
        }
        assert_eq!(GoDuration(Duration::from_secs(90)).to_string(), "1m30s");
    }
}
