//! What the caller hears, as a player would play it, and when.

use std::path::Path;
use std::time::Duration;

use crate::media::AudioRaw;
use crate::pcm;

/// More is counted but not kept: ten minutes at 48 kHz.
const LONGEST: usize = 48_000 * 600;

/// Collects the bot's audio. All times are counted from the request.
#[derive(Default)]
pub struct Heard {
    /// Of the first frame; later ones are brought to it.
    rate: u32,
    /// Everything, with the silence between, as it came out of the loudspeaker.
    played: Vec<i16>,
    /// Frames only, since the caller began to speak.
    answer: Vec<i16>,
    play_end: Duration,
    /// Bytes of audio that came.
    pub bytes: u64,
    /// When the first frame came.
    pub first_audio: Option<Duration>,
    /// When the first audible frame came.
    pub first_sound: Option<Duration>,
    /// When the last audible frame is over.
    pub sound_until: Option<Duration>,
    /// When the caller began to speak.
    spoke: Option<Duration>,
    /// When the first audible frame after that came.
    pub answer_sound: Option<Duration>,
}

impl Heard {
    /// A frame has come. Frames that make no sense are skipped.
    pub fn frame(&mut self, at: Duration, frame: &AudioRaw) {
        if !(1_000..=192_000).contains(&frame.sample_rate) || frame.num_channels > 8 {
            return;
        }
        self.bytes += frame.audio.len() as u64;
        self.first_audio.get_or_insert(at);
        if self.rate == 0 {
            self.rate = frame.sample_rate;
        }
        let samples = pcm::decode(without_header(&frame.audio), frame.num_channels);
        let audible = pcm::audible(&samples, frame.sample_rate);
        self.play(at, &pcm::resample(&samples, frame.sample_rate, self.rate));
        if audible {
            self.first_sound.get_or_insert(at);
            self.sound_until = Some(self.play_end);
            if self.spoke.is_some() {
                self.answer_sound.get_or_insert(at);
            }
        }
    }

    /// From now on what comes is an answer.
    pub fn caller_speaks(&mut self, at: Duration) {
        self.spoke.get_or_insert(at);
    }

    /// Whether something was heard before the caller spoke.
    pub fn greeting(&self) -> bool {
        match (self.first_sound, self.spoke) {
            (Some(sound), Some(spoke)) => sound < spoke,
            (sound, None) => sound.is_some(),
            (None, _) => false,
        }
    }

    /// What came after the caller began to speak, and its rate.
    pub fn answer(&self) -> (&[i16], u32) {
        (&self.answer, self.rate)
    }

    /// Writes what was heard. Nothing heard is an empty file of a usual rate.
    pub fn write_wav(&self, path: &Path) -> Result<(), hound::Error> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: if self.rate == 0 { 24_000 } else { self.rate },
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut wav = hound::WavWriter::create(path, spec)?;
        let mut samples = wav.get_i16_writer(self.played.len() as u32);
        for &sample in &self.played {
            samples.write_sample(sample);
        }
        samples.flush()?;
        wav.finalize()
    }

    fn play(&mut self, at: Duration, samples: &[i16]) {
        if !self.played.is_empty() && at > self.play_end {
            let pause = (at - self.play_end).as_secs_f64() * f64::from(self.rate);
            let room = LONGEST.saturating_sub(self.played.len());
            self.played.resize(self.played.len() + (pause as usize).min(room), 0);
        }
        let length = Duration::from_secs_f64(samples.len() as f64 / f64::from(self.rate));
        self.play_end = self.play_end.max(at) + length;
        let room = LONGEST.saturating_sub(self.played.len());
        let kept = &samples[..samples.len().min(room)];
        self.played.extend_from_slice(kept);
        if self.spoke.is_some() {
            self.answer.extend_from_slice(kept);
        }
    }
}

/// Some bots put a WAV header before each piece.
fn without_header(audio: &[u8]) -> &[u8] {
    if audio.len() > 44 && audio.starts_with(b"RIFF") { &audio[44..] } else { audio }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(level: i16, millis: u32, rate: u32) -> AudioRaw {
        let audio: Vec<u8> = (0..rate * millis / 1000).flat_map(|_| level.to_le_bytes()).collect();
        AudioRaw { audio: audio.into(), sample_rate: rate, num_channels: 1, ..AudioRaw::default() }
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn frames_that_come_at_once_are_played_one_after_the_other() {
        let mut heard = Heard::default();
        for _ in 0..3 {
            heard.frame(ms(100), &frame(3_000, 200, 24_000));
        }
        assert_eq!(heard.sound_until, Some(ms(700)));
        heard.frame(ms(1_000), &frame(3_000, 100, 16_000));
        assert_eq!(heard.sound_until, Some(ms(1_100)));
        assert_eq!(heard.played.len(), 24_000, "600 ms, a pause of 300 ms, 100 ms");
    }

    #[test]
    fn greeting_and_answer_are_told_apart_by_when_the_caller_spoke() {
        let mut heard = Heard::default();
        heard.frame(ms(10), &frame(0, 20, 24_000));
        assert!(!heard.greeting());
        heard.frame(ms(30), &frame(3_000, 20, 24_000));
        heard.caller_speaks(ms(500));
        heard.frame(ms(600), &frame(0, 20, 24_000));
        assert!(heard.greeting());
        assert_eq!((heard.first_audio, heard.answer_sound), (Some(ms(10)), None));
        heard.frame(ms(700), &frame(3_000, 20, 24_000));
        assert_eq!(heard.answer_sound, Some(ms(700)));
        assert_eq!(heard.answer().0.len(), 960);
    }

    #[test]
    fn frames_that_make_no_sense_are_skipped() {
        let mut heard = Heard::default();
        heard.frame(ms(1), &frame(3_000, 20, 0));
        heard.frame(ms(1), &AudioRaw { num_channels: 99, ..frame(3_000, 20, 8_000) });
        assert_eq!((heard.bytes, heard.first_audio), (0, None));
    }

    #[test]
    fn what_was_heard_is_a_wav() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("heard.wav");
        let mut heard = Heard::default();
        heard.write_wav(&path).unwrap();
        assert_eq!(hound::WavReader::open(&path).unwrap().len(), 0);
        heard.frame(ms(1), &frame(7, 20, 8_000));
        heard.write_wav(&path).unwrap();
        let mut wav = hound::WavReader::open(&path).unwrap();
        assert_eq!(wav.spec().sample_rate, 8_000);
        assert!(wav.samples::<i16>().all(|sample| sample.unwrap() == 7));
    }
}
