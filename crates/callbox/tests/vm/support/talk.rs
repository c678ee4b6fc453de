//! A client that talks all the time and listens how the echo comes back.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::{PATIENCE, Wire};

/// One frame of speech.
const FRAME: Duration = Duration::from_millis(20);

/// What came back so far. Frames come back in order, and each as it was sent, or the talk fails.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// How many frames.
    pub frames: u64,
    /// The longest silence between two frames since [`Talk::measure_anew`].
    pub longest_gap: Duration,
    /// From sending to hearing, of every frame since then.
    pub round_trips: Vec<Duration>,
    last: Option<Instant>,
}

impl Heard {
    /// The middle one of the round trips, in milliseconds.
    pub fn median_ms(&self) -> f64 {
        let mut sorted = self.round_trips.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).map_or(f64::NAN, |median| median.as_secs_f64() * 1e3)
    }
}

/// A call with a bot that echoes.
pub struct Talk {
    heard: watch::Sender<Heard>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Wire>,
}

impl Talk {
    /// Begins to talk, and goes on until [`Talk::stop`], or until the line is closed.
    pub fn on(wire: Wire) -> Talk {
        let (stop, stopped) = oneshot::channel();
        let heard = watch::Sender::default();
        let task = tokio::spawn(talk(wire, heard.clone(), stopped));
        Talk { heard, stop, task }
    }

    /// Waits until so many more frames have come back.
    pub async fn hear(&self, more: u64) {
        let mut heard = self.heard.subscribe();
        let until = heard.borrow().frames + more;
        let hearing = async {
            loop {
                let frames = heard.borrow_and_update().frames;
                if frames >= until || self.task.is_finished() {
                    return frames;
                }
                let _ = timeout(FRAME, heard.changed()).await;
            }
        };
        let is = timeout(PATIENCE, hearing).await.unwrap_or(self.heard.borrow().frames);
        assert!(is >= until, "{is} frames came back, and {until} should");
    }

    /// Forgets gaps and round trips so far; gives what they were.
    pub fn measure_anew(&self) -> Heard {
        let mut before = Heard::default();
        self.heard.send_modify(|heard| {
            before = heard.clone();
            heard.longest_gap = Duration::ZERO;
            heard.round_trips.clear();
        });
        before
    }

    /// Stops talking; the line stays open.
    pub async fn stop(self) -> Wire {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }
}

async fn talk(
    mut wire: Wire,
    heard: watch::Sender<Heard>,
    mut stop: oneshot::Receiver<()>,
) -> Wire {
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent: Vec<Instant> = Vec::new();
    loop {
        tokio::select! {
            _ = frames.tick() => {
                let frame = Message::binary(frame(sent.len() as u64));
                sent.push(Instant::now());
                if wire.0.send(frame).await.is_err() {
                    return wire;
                }
            }
            message = wire.0.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let now = Instant::now();
                    heard.send_modify(|heard| {
                        assert_eq!(bytes, frame(heard.frames), "frame {}", heard.frames);
                        let gap = heard.last.map_or(Duration::ZERO, |last| now - last);
                        heard.longest_gap = heard.longest_gap.max(gap);
                        heard.round_trips.push(now - sent[heard.frames as usize]);
                        heard.last = Some(now);
                        heard.frames += 1;
                    });
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return wire,
            },
            _ = &mut stop => return wire,
        }
    }
}

/// Counts as audio, as far as the dispatcher looks, and is like no other frame.
fn frame(number: u64) -> Vec<u8> {
    let mut frame = vec![0x12; 640];
    frame[632..].copy_from_slice(&number.to_be_bytes());
    frame
}
