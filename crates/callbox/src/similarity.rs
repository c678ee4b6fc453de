//! How much of what was said is in what was heard.
//!
//! Both are brought to a low rate. What was said is cut into pieces of half a second; each piece
//! is slid over everything heard and scored by its best normalised cross-correlation; the pieces
//! are weighted by their energy. Pieces, because on the way a pause may have been put between
//! two of them (a late frame), which would ruin one correlation over the whole.

use crate::pcm;

/// From here on what was heard counts as an echo. An untouched echo scores above 0.95, another
/// sentence of the same voice below 0.5 (see the tests).
pub const ECHO: f64 = 0.7;

/// Samples per second of the comparison: the first formant of speech is below 1 kHz.
const RATE: u32 = 2_000;
const PIECE: usize = RATE as usize / 2;
/// More is not searched: two minutes.
const LONGEST: usize = RATE as usize * 120;

/// From 0 (nothing of it) to 1 (the same, at whatever loudness and delay).
pub fn similarity(said: &[i16], said_rate: u32, heard: &[i16], heard_rate: u32) -> f64 {
    let said = prepare(said, said_rate);
    let heard = prepare(heard, heard_rate);
    let total: f64 = said.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    if total == 0.0 || heard.is_empty() {
        return 0.0;
    }
    said.chunks(PIECE)
        .map(|piece| {
            let energy = energy(piece);
            f64::from(best_match(piece, energy, &heard)) * f64::from(energy) / total
        })
        .sum::<f64>()
        .clamp(0.0, 1.0)
}

fn prepare(samples: &[i16], rate: u32) -> Vec<f32> {
    let low = pcm::resample(samples, rate, RATE);
    let low = &low[..low.len().min(LONGEST)];
    let mean = low.iter().map(|&sample| f32::from(sample)).sum::<f32>() / low.len().max(1) as f32;
    low.iter().map(|&sample| f32::from(sample) - mean).collect()
}

fn energy(samples: &[f32]) -> f32 {
    samples.iter().map(|sample| sample * sample).sum()
}

/// The best normalised correlation of `piece` with any stretch of `heard`.
fn best_match(piece: &[f32], piece_energy: f32, heard: &[f32]) -> f32 {
    if piece_energy == 0.0 || heard.len() < piece.len() {
        return 0.0;
    }
    // A stretch far quieter than the loudest must not win by being divided by almost nothing.
    let floor = 0.001 * energy(heard) / heard.len() as f32 * piece.len() as f32;
    heard
        .windows(piece.len())
        .map(|stretch| {
            // One pass for both sums; separate lanes, so that the compiler can use vectors.
            let mut products = [0.0f32; 8];
            let mut squares = [0.0f32; 8];
            for (left, right) in piece.chunks(8).zip(stretch.chunks(8)) {
                for (lane, (a, b)) in left.iter().zip(right).enumerate() {
                    products[lane] += a * b;
                    squares[lane] += b * b;
                }
            }
            let stretch_energy = squares.iter().sum::<f32>().max(floor);
            if stretch_energy == 0.0 {
                return 0.0;
            }
            products.iter().sum::<f32>() / (piece_energy * stretch_energy).sqrt()
        })
        .fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::SEND_RATE;
    use crate::speech;

    fn hello() -> Vec<i16> {
        speech::hello()
    }

    fn quieter(samples: &[i16]) -> Vec<i16> {
        samples.iter().map(|sample| sample / 5).collect()
    }

    #[test]
    fn an_echo_is_recognised_late_quiet_and_at_another_rate() {
        let mut heard = vec![0; 24_000];
        heard.extend(pcm::resample(&quieter(&hello()), SEND_RATE, 24_000));
        heard.extend(vec![0; 5_000]);
        let score = similarity(&hello(), SEND_RATE, &heard, 24_000);
        assert!(score > 0.95, "{score}");
    }

    #[test]
    fn a_pause_in_the_middle_does_not_ruin_it() {
        let said = hello();
        let (first, second) = said.split_at(said.len() / 2);
        let heard = [first, &vec![0; 9_000], second].concat();
        let score = similarity(&said, SEND_RATE, &heard, SEND_RATE);
        assert!(score > 0.85, "{score}");
    }

    #[test]
    fn other_sounds_are_not_an_echo() {
        let said = hello();
        let backwards: Vec<i16> = said.iter().rev().copied().collect();
        let faster = pcm::resample(&said, 20_000, SEND_RATE);
        let tone: Vec<i16> =
            (0..40_000).map(|n| ((f64::from(n) * 0.05).sin() * 9_000.0) as i16).collect();
        let mut seed = 1u32;
        let noise: Vec<i16> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as i16
        })
        .take(40_000)
        .collect();
        for (name, other) in
            [("backwards", backwards), ("faster", faster), ("tone", tone), ("noise", noise)]
        {
            let score = similarity(&said, SEND_RATE, &other, SEND_RATE);
            assert!(score < 0.6, "{name}: {score}");
        }
    }

    #[test]
    fn nothing_is_like_nothing() {
        assert_eq!(similarity(&[], SEND_RATE, &hello(), SEND_RATE), 0.0);
        assert_eq!(similarity(&hello(), SEND_RATE, &[], SEND_RATE), 0.0);
        assert_eq!(similarity(&hello(), SEND_RATE, &[0; 50_000], SEND_RATE), 0.0);
        assert_eq!(similarity(&hello(), SEND_RATE, &[1; 10], SEND_RATE), 0.0);
    }
}
