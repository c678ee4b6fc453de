//! What the caller says: the embedded greeting, a WAV file, or a text spoken by espeak-ng.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::media::SEND_RATE;
use crate::pcm;

/// "Hello there please say this back to me", 16 kHz mono, made with espeak-ng and sox. In one
/// breath: a pause would make bots answer the first half.
static HELLO: &[u8] = include_bytes!("../assets/hello.wav");
/// Longer speeches are a mistake rather than a test.
const LONGEST_SECONDS: usize = 120;

/// Why something cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    /// The file is not a WAV that we can read.
    #[error("cannot say {path:?}: {source}")]
    Wav {
        /// Which file.
        path: PathBuf,
        /// What the decoder says.
        #[source]
        source: hound::Error,
    },
    /// The file is too long, or there is no sound in it.
    #[error("cannot say {path:?}: {reason}")]
    Unsuitable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// espeak-ng is not there.
    #[error("cannot say {text:?}: espeak-ng is not installed")]
    NoVoice {
        /// What was to be said.
        text: String,
    },
    /// espeak-ng is there but did not speak.
    #[error("cannot say {text:?}: espeak-ng failed: {reason}")]
    Voice {
        /// What was to be said.
        text: String,
        /// What it wrote.
        reason: String,
    },
}

impl SpeechError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            SpeechError::NoVoice { .. } => Some(
                "install the package espeak-ng, or give a WAV file, or leave --say out".to_owned(),
            ),
            SpeechError::Wav { .. } => {
                Some("PCM or float WAV of any rate, one or two channels".to_owned())
            }
            _ => None,
        }
    }
}

/// The embedded greeting, at [`SEND_RATE`].
pub fn hello() -> Vec<i16> {
    decode(Cursor::new(HELLO)).unwrap_or_default()
}

/// What `--say` means: a WAV file where there is one of that name (or the name ends so), else
/// a text. Samples at [`SEND_RATE`].
pub fn from_argument(say: &str) -> Result<Vec<i16>, SpeechError> {
    let path = Path::new(say);
    let named_wav = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("wav"));
    if named_wav || path.is_file() { from_wav(path) } else { from_text(say) }
}

fn from_wav(path: &Path) -> Result<Vec<i16>, SpeechError> {
    let wav_error = |source| SpeechError::Wav { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(|error| wav_error(error.into()))?;
    let samples = decode(std::io::BufReader::new(file)).map_err(wav_error)?;
    let unsuitable =
        |reason: String| Err(SpeechError::Unsuitable { path: path.to_owned(), reason });
    if samples.len() > LONGEST_SECONDS * SEND_RATE as usize {
        return unsuitable(format!("it is longer than {LONGEST_SECONDS} s"));
    }
    // Without the silence at its ends: what counts is when the last word was said.
    match pcm::trim(&samples, SEND_RATE) {
        [] => unsuitable("there is no sound in it".to_owned()),
        words => Ok(words.to_vec()),
    }
}

fn from_text(text: &str) -> Result<Vec<i16>, SpeechError> {
    let failed = |reason: String| SpeechError::Voice { text: text.to_owned(), reason };
    // A file, because on a pipe espeak-ng cannot go back to write the length into the header.
    let wav = tempfile::Builder::new()
        .prefix("callbox-say-")
        .suffix(".wav")
        .tempfile()
        .map_err(|error| failed(error.to_string()))?;
    let output = Command::new("espeak-ng")
        .arg("-w")
        .arg(wav.path())
        // Never an option, whatever the text begins with.
        .arg("--")
        .arg(text)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(SpeechError::NoVoice { text: text.to_owned() });
        }
        Err(error) => return Err(failed(error.to_string())),
    }
    let samples = from_wav(wav.path()).map_err(|error| failed(error.to_string()))?;
    Ok(samples)
}

fn decode(reader: impl Read) -> Result<Vec<i16>, hound::Error> {
    let mut wav = hound::WavReader::new(reader)?;
    let spec = wav.spec();
    let samples: Vec<i16> = match spec.sample_format {
        hound::SampleFormat::Int => {
            let shift = i32::from(spec.bits_per_sample) - 16;
            let scale = |sample: i32| if shift >= 0 { sample >> shift } else { sample << -shift };
            wav.samples::<i32>()
                .map(|sample| sample.map(|sample| scale(sample) as i16))
                .collect::<Result<_, _>>()?
        }
        hound::SampleFormat::Float => wav
            .samples::<f32>()
            .map(|sample| sample.map(|sample| (sample * f32::from(i16::MAX)) as i16))
            .collect::<Result<_, _>>()?,
    };
    let mono = pcm::mix(samples, u32::from(spec.channels));
    Ok(pcm::resample(&mono, spec.sample_rate, SEND_RATE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wav(
        spec: hound::WavSpec,
        write: impl Fn(&mut hound::WavWriter<std::fs::File>),
    ) -> tempfile::TempPath {
        let file = tempfile::Builder::new().suffix(".wav").tempfile().unwrap();
        let mut writer = hound::WavWriter::new(file.reopen().unwrap(), spec).unwrap();
        write(&mut writer);
        writer.finalize().unwrap();
        file.into_temp_path()
    }

    #[test]
    fn the_embedded_greeting_is_some_seconds_of_sound() {
        let hello = hello();
        assert!((24_000..64_000).contains(&hello.len()), "{}", hello.len());
        assert!(pcm::audible(&hello, SEND_RATE));
    }

    #[test]
    fn other_rates_depths_and_channels_are_brought_to_ours() {
        for (bits_per_sample, sample_format, loud) in [
            (8, hound::SampleFormat::Int, 100),
            (16, hound::SampleFormat::Int, 25_600),
            (24, hound::SampleFormat::Int, 6_553_600),
            (32, hound::SampleFormat::Float, 0),
        ] {
            let spec =
                hound::WavSpec { channels: 2, sample_rate: 8_000, bits_per_sample, sample_format };
            let path = wav(spec, |writer| {
                for _ in 0..8_000 {
                    match sample_format {
                        hound::SampleFormat::Int => writer.write_sample(loud).unwrap(),
                        hound::SampleFormat::Float => writer.write_sample(0.78f32).unwrap(),
                    }
                }
            });
            let samples = from_argument(path.to_str().unwrap()).unwrap();
            assert_eq!(samples.len(), 8_000);
            assert!(samples[100].abs_diff(25_600) < 100, "{bits_per_sample}: {}", samples[100]);
        }
    }

    #[test]
    fn files_that_cannot_be_said_are_named() {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 8_000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let silent = wav(spec, |writer| writer.write_sample(0i16).unwrap());
        let error = from_argument(silent.to_str().unwrap()).unwrap_err();
        assert!(matches!(error, SpeechError::Unsuitable { .. }), "{error}");
        let error = from_argument("no/such.wav").unwrap_err();
        assert!(matches!(error, SpeechError::Wav { .. }), "{error}");
    }
}
