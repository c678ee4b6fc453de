//! Samples: loudness, rates, channels.

/// A block of sound counts as audible from this root mean square on (about -47 dB full scale):
/// above the noise of a silent line, below quiet speech.
const AUDIBLE_RMS: f64 = 150.0;

/// Whether somebody would hear something: one block of 20 ms is loud enough.
pub fn audible(samples: &[i16], rate: u32) -> bool {
    !trim(samples, rate).is_empty()
}

/// From the first to the last audible block of 20 ms.
pub fn trim(samples: &[i16], rate: u32) -> &[i16] {
    let block = (rate as usize / 50).max(1);
    let is_loud = |block: &[i16]| rms(block) > AUDIBLE_RMS;
    let Some(first) = samples.chunks(block).position(is_loud) else { return &[] };
    let last = samples.chunks(block).map(is_loud).rposition(|loud| loud).unwrap_or(first);
    &samples[first * block..samples.len().min((last + 1) * block)]
}

/// Root mean square.
pub fn rms(samples: &[i16]) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    let power: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    (power / samples.len() as f64).sqrt()
}

/// Little-endian bytes to one channel. A byte too many is dropped.
pub fn decode(bytes: &[u8], channels: u32) -> Vec<i16> {
    let samples: Vec<i16> =
        bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
    mix(samples, channels)
}

/// Interleaved channels to one.
pub fn mix(samples: Vec<i16>, channels: u32) -> Vec<i16> {
    if channels <= 1 {
        return samples;
    }
    let mean = |frame: &[i16]| {
        let sum: i64 = frame.iter().map(|&sample| i64::from(sample)).sum();
        (sum / frame.len() as i64) as i16
    };
    samples.chunks(channels as usize).map(mean).collect()
}

/// From one rate to another. Downwards each sample is the mean of what it replaces (which keeps
/// most of what is too high for the new rate out), upwards it lies on the line between its
/// neighbours. Good enough for speech and its comparison; not for music.
pub fn resample(samples: &[i16], from: u32, to: u32) -> Vec<i16> {
    if from == to || samples.is_empty() || from == 0 || to == 0 {
        return samples.to_vec();
    }
    let step = f64::from(from) / f64::from(to);
    let count = (samples.len() as f64 / step).floor() as usize;
    let at = |index: usize| f64::from(samples[index.min(samples.len() - 1)]);
    (0..count)
        .map(|index| {
            let begin = index as f64 * step;
            let value = if step > 1.0 {
                mean_between(begin, begin + step, at)
            } else {
                let left = begin.floor();
                let part = begin - left;
                at(left as usize) * (1.0 - part) + at(left as usize + 1) * part
            };
            value.round() as i16
        })
        .collect()
}

fn mean_between(begin: f64, end: f64, at: impl Fn(usize) -> f64) -> f64 {
    let (first, last) = (begin.floor() as usize, end.ceil() as usize);
    let sum: f64 = (first..last)
        .map(|index| {
            let share = (index as f64 + 1.0).min(end) - (index as f64).max(begin);
            at(index) * share
        })
        .sum();
    sum / (end - begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hertz: f64, seconds: f64) -> Vec<i16> {
        (0..(f64::from(rate) * seconds) as usize)
            .map(|n| {
                let phase = n as f64 / f64::from(rate) * hertz * std::f64::consts::TAU;
                (phase.sin() * 8000.0) as i16
            })
            .collect()
    }

    #[test]
    fn rates_change_and_the_tone_stays() {
        for (from, to) in [(48_000, 16_000), (44_100, 16_000), (8_000, 16_000), (22_050, 24_000)] {
            let changed = resample(&tone(from, 200.0, 0.5), from, to);
            let expected = tone(to, 200.0, 0.5);
            assert!(changed.len().abs_diff(expected.len()) <= 1, "{from} to {to}");
            let loudness = rms(&changed) / rms(&expected);
            assert!((0.97..1.03).contains(&loudness), "{from} to {to}: {loudness}");
        }
        assert_eq!(resample(&[], 8000, 16_000), Vec::<i16>::new());
        assert_eq!(resample(&[1, 2], 0, 16_000), vec![1, 2]);
    }

    #[test]
    fn channels_are_mixed_and_odd_bytes_dropped() {
        assert_eq!(decode(&[2, 0, 4, 0, 255, 255, 1, 0, 9], 2), vec![3, 0]);
        assert_eq!(decode(&[2, 0, 4], 1), vec![2]);
        assert_eq!(decode(&[], 7), Vec::<i16>::new());
    }

    #[test]
    fn noise_of_a_silent_line_is_not_audible_but_a_short_word_is() {
        assert!(!audible(&[40, -40].repeat(8000), 16_000));
        let mut word = vec![0; 16_000];
        word[8_000..8_400].fill(2_000);
        assert!(audible(&word, 16_000));
        assert_eq!(trim(&word, 16_000).len(), 640, "the two blocks that it touches");
        assert!(!audible(&[], 0));
    }
}
