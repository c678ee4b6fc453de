//! Something to say, and whether the same came back.

use std::path::{Path, PathBuf};

/// Samples per second of the wire.
const RATE: u32 = 16_000;
/// Samples of one frame of the wire.
const FRAME: usize = 320;
const FRAMES: usize = 75;

/// A rising tone, loud from its first sample to its last: no frame of it is like another, and
/// nobody trims its ends.
pub struct Said {
    pub wav: PathBuf,
    samples: Vec<i16>,
}

impl Said {
    /// Writes it into `dir`.
    pub fn in_dir(dir: &Path) -> Said {
        let mut phase = 0.7f64;
        let tone = (0..FRAMES * FRAME).map(|n| {
            phase += (200.0 + n as f64 * 0.02) / f64::from(RATE) * std::f64::consts::TAU;
            (phase.sin() * 9_000.0) as i16
        });
        let samples: Vec<i16> = tone.collect();
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: RATE,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let wav = dir.join("said.wav");
        let mut writer = hound::WavWriter::create(&wav, spec).unwrap();
        samples.iter().for_each(|sample| writer.write_sample(*sample).unwrap());
        writer.finalize().unwrap();
        Said { wav, samples }
    }
}

/// Every frame that was said is in what was heard, sample for sample and in order. Between two
/// frames there may be a pause, where one was late.
#[track_caller]
pub fn assert_is_echo(said: &Said, heard: &Path) {
    let mut wav = hound::WavReader::open(heard).unwrap();
    assert_eq!(wav.spec().sample_rate, RATE);
    let heard: Vec<i16> = wav.samples().map(Result::unwrap).collect();
    let mut from = 0;
    for (number, frame) in said.samples.chunks(FRAME).enumerate() {
        let found = heard[from..].windows(FRAME).position(|stretch| stretch == frame);
        let Some(at) = found else {
            panic!("frame {number} of {FRAMES} did not come back (after sample {from})");
        };
        from += at + FRAME;
    }
}
