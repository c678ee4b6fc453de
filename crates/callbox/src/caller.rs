//! Places one real call: starts a session, opens its media websocket, talks, listens, hangs up,
//! and makes sure that the session ended.

use std::time::{Duration, Instant};

use callbox_protocol::api::{Outcome, Session, SessionState, StartRequest};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::api_client::{ApiClient, Started};
use crate::conversation::{Conversation, Turn};
use crate::error::CliError;
use crate::follow::Follow;
use crate::heard::Heard;
use crate::line::{Incoming, Line};
use crate::media::{FRAME_SAMPLES, Frame, Payload};
use crate::progress::Progress;

/// How long a session may take to end after we hung up, before we ask for its end.
const GOODBYE: Duration = Duration::from_secs(20);

/// What call to place.
pub struct Plan {
    /// The start request.
    pub request: StartRequest,
    /// What to say, at [`crate::media::SEND_RATE`]; nothing to hang up at the first sound.
    pub speech: Vec<i16>,
    /// Hang up this long after the bot was there at the latest.
    pub longest: Duration,
    /// Give up where nobody is there by then, counted from the request.
    pub patience: Duration,
}

/// A call that was placed, however it went.
pub struct Placed {
    /// The session as it was last seen, mostly ended.
    pub session: Session,
    /// What came back.
    pub heard: Heard,
    /// Bytes of audio that were sent.
    pub sent_bytes: u64,
    /// What only the client can know.
    pub client_ms: ClientMs,
    /// The highest position in the queue that was seen, if it had to wait.
    pub highest_position: Option<u32>,
    /// The other side ended it, not we.
    pub cut_off: bool,
    /// Why the call is not a good one, where something broke.
    pub trouble: Option<CliError>,
}

/// Moments by the client's clock, in milliseconds from the request (`answer` excepted).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClientMs {
    /// The start was answered.
    #[serde(rename = "request_ms")]
    pub request: Option<f64>,
    /// The media websocket is open.
    #[serde(rename = "connected_ms")]
    pub connected: Option<f64>,
    /// The bot's pipeline said `bot-ready`.
    #[serde(rename = "bot_ready_ms")]
    pub bot_ready: Option<f64>,
    /// The first frame of audio came.
    #[serde(rename = "first_audio_ms")]
    pub first_audio: Option<f64>,
    /// The first frame came in which something can be heard.
    #[serde(rename = "first_sound_ms")]
    pub first_sound: Option<f64>,
    /// From the caller's last word to the first sound of the answer; negative where the bot
    /// began before.
    #[serde(rename = "answer_ms")]
    pub answer: Option<f64>,
}

/// Places a call. An error only where there is no session to tell about; else trouble is part
/// of the result.
pub async fn place(
    client: &ApiClient,
    plan: &Plan,
    progress: &Progress,
) -> Result<Placed, CliError> {
    progress.doing("asking for a session");
    let begun = Instant::now();
    // One listener for the whole call: a Ctrl-C that comes between two places that wait for it
    // would be lost, and the call would go on.
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be listened to");
    let started = tokio::select! {
        started = client.start(&plan.request) => started?,
        _ = interrupt.recv() => return Err(CliError::Interrupted),
    };
    let client_ms = ClientMs { request: Some(millis(begun.elapsed())), ..ClientMs::default() };
    let own = client.with_key(started.token.clone());
    let mut call = Call {
        plan,
        progress,
        begun,
        follow: Follow::start(own.clone(), started.session_id.clone()),
        latest: None,
        heard: Heard::default(),
        conversation: Conversation::new(plan.speech.len(), plan.longest),
        sent_bytes: 0,
        highest_position: started.queue_position,
        client_ms,
        interrupt,
    };
    let end = call.run(&started).await;
    let cut_off = matches!(end, End::Closed);
    let latest = call.latest.take();
    let (session, trouble) = tokio::select! {
        settled = settle(&own, &started.session_id, end, latest) => settled?,
        _ = call.interrupt.recv() => return Err(CliError::Interrupted),
    };
    progress.session(&session);
    call.note_times();
    let Call { heard, sent_bytes, client_ms, highest_position, .. } = call;
    Ok(Placed { session, heard, sent_bytes, client_ms, highest_position, cut_off, trouble })
}

struct Call<'a> {
    plan: &'a Plan,
    progress: &'a Progress,
    begun: Instant,
    follow: Follow,
    latest: Option<Session>,
    heard: Heard,
    conversation: Conversation,
    sent_bytes: u64,
    highest_position: Option<u32>,
    client_ms: ClientMs,
    interrupt: Signal,
}

/// How the media part of a call ended.
enum End {
    /// We have heard enough.
    HungUp,
    /// The other side closed the line, or the session was over.
    Closed,
    /// Something is wrong on our side of the world, or took too long.
    Gone(CliError),
}

impl Call<'_> {
    async fn run(&mut self, started: &Started) -> End {
        let mut line = match Line::open(&started.ws_url, &started.token).await {
            Ok(line) => line,
            Err(error) => return End::Gone(error.into()),
        };
        self.client_ms.connected = Some(millis(self.begun.elapsed()));
        let hello = Frame::client_ready(started.session_id.get(..8).unwrap_or("callbox"));
        if let Err(error) = line.send(&hello).await {
            return End::Gone(error.into());
        }
        let end = self.talk(&mut line).await;
        self.progress.doing("hanging up");
        line.hang_up().await;
        end
    }

    async fn talk(&mut self, line: &mut Line) -> End {
        let mut frames = interval(Duration::from_millis(20));
        // A late frame is followed by the next ones at once: the rate stays right.
        frames.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            tokio::select! {
                incoming = line.receive() => match incoming {
                    Ok(Incoming::Frame(frame)) => self.take(&frame),
                    Ok(Incoming::Other) => {}
                    Ok(Incoming::Closed) => return End::Closed,
                    Err(error) => return End::Gone(error.into()),
                },
                session = self.follow.changed() => {
                    if let Some(end) = self.moved(session) {
                        return end;
                    }
                }
                _ = frames.tick() => {
                    let now = self.begun.elapsed();
                    if !self.conversation.bot_is_there() && now > self.plan.patience {
                        let what = "nobody was there to talk to".to_owned();
                        return End::Gone(CliError::TooSlow { what, limit: self.plan.patience });
                    }
                    let Some(frame) = self.speak(now) else { return End::HungUp };
                    self.progress.doing(self.conversation.doing());
                    if let Some(frame) = frame
                        && let Err(error) = line.send(&frame).await
                    {
                        return End::Gone(error.into());
                    }
                }
                _ = self.interrupt.recv() => return End::Gone(CliError::Interrupted),
            }
        }
    }

    /// The frame to send now, if any; `None` to hang up.
    fn speak(&mut self, now: Duration) -> Option<Option<Frame>> {
        let samples: &[i16] = match self.conversation.turn(now, &self.heard) {
            Turn::Off => return Some(None),
            Turn::HangUp => return None,
            Turn::Silence => &[],
            Turn::Speech(from) => {
                self.heard.caller_speaks(now);
                &self.plan.speech[from..self.plan.speech.len().min(from + FRAME_SAMPLES)]
            }
        };
        self.sent_bytes += (FRAME_SAMPLES * 2) as u64;
        Some(Some(Frame::speech(samples)))
    }

    fn take(&mut self, frame: &Frame) {
        let now = self.begun.elapsed();
        if let Some(Payload::Audio(audio)) = &frame.payload {
            self.heard.frame(now, audio);
        } else if frame.is_bot_ready() {
            self.client_ms.bot_ready.get_or_insert(millis(now));
            self.conversation.bot_ready(now);
        }
    }

    fn moved(&mut self, session: Session) -> Option<End> {
        self.progress.session(&session);
        if session.moments.ready.is_some() {
            self.conversation.session_ready(self.begun.elapsed());
        }
        let position = session.queue.as_ref().map(|place| place.position);
        self.highest_position = self.highest_position.max(position);
        let over = session.state == SessionState::Ended;
        self.latest = Some(session);
        over.then_some(End::Closed)
    }

    fn note_times(&mut self) {
        self.client_ms.first_audio = self.heard.first_audio.map(millis);
        self.client_ms.first_sound = self.heard.first_sound.map(millis);
        self.client_ms.answer = match (self.conversation.spoken(), self.heard.answer_sound) {
            (Some(spoken), Some(sound)) => Some(millis(sound) - millis(spoken)),
            _ => None,
        };
    }
}

/// Sees to it that nothing of the session is left, and finds out how it ended.
async fn settle(
    own: &ApiClient,
    id: &str,
    end: End,
    latest: Option<Session>,
) -> Result<(Session, Option<CliError>), CliError> {
    let (mut trouble, gone) = match end {
        End::HungUp | End::Closed => (None, false),
        End::Gone(error) => (Some(error), true),
    };
    if gone {
        // Whether this reaches the dispatcher or not, the answer comes with the wait below.
        let _ = own.stop(id).await;
    }
    let mut last = own.when_ended(id, GOODBYE).await;
    if last.as_ref().is_ok_and(|session| session.state != SessionState::Ended) {
        let _ = own.stop(id).await;
        last = own.when_ended(id, GOODBYE).await;
    }
    let session = match (last, latest) {
        (Ok(session), _) => session,
        (Err(error), Some(latest)) => {
            trouble.get_or_insert(error.into());
            latest
        }
        (Err(error), None) => return Err(trouble.unwrap_or(error.into())),
    };
    if session.outcome == Some(Outcome::Failed)
        && let Some(reason) = session.end_reason.clone()
    {
        trouble = Some(CliError::SessionFailed { session_id: id.to_owned(), reason });
    }
    Ok((session, trouble))
}

/// Milliseconds with microseconds behind the point.
pub fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}
