//! Runs the program itself.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Child;

/// What a run left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// That standard error has all of this.
    #[track_caller]
    pub fn says(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in {self:?}");
        }
    }
}

/// `callbox --url <url> <arguments>`, in an environment of its own.
pub async fn callbox(url: &str, arguments: &[&str]) -> Ran {
    callbox_with(url, arguments, &[]).await
}

pub async fn callbox_with(url: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    finish(begin(url, arguments, variables)).await
}

/// Begins to run; see [`finish`].
pub fn begin(url: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_callbox"))
        .args(["--url", url])
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Waits for the end.
pub async fn finish(child: Child) -> Ran {
    let output = tokio::time::timeout(Duration::from_secs(90), child.wait_with_output())
        .await
        .expect("callbox hangs")
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What Ctrl-C does.
pub fn interrupt(child: &Child) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// A WAV of a short rising tone: quicker to say than the built-in greeting.
pub fn short_word() -> tempfile::TempPath {
    let file = tempfile::Builder::new().suffix(".wav").tempfile().unwrap();
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::new(file.reopen().unwrap(), spec).unwrap();
    let mut phase = 0.0f64;
    for n in 0..6_400 {
        phase += (200.0 + f64::from(n) * 0.08) / 16_000.0 * std::f64::consts::TAU;
        wav.write_sample((phase.sin() * 8_000.0) as i16).unwrap();
    }
    wav.finalize().unwrap();
    file.into_temp_path()
}
