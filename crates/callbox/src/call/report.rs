//! What a call prints.

use std::fmt::Write as _;
use std::path::Path;

use callbox_protocol::api::{EndReason, Outcome, Stage, StagesMs};
use serde::Serialize;

use crate::caller::{ClientMs, Placed};
use crate::media::SEND_RATE;
use crate::similarity::{ECHO, similarity};
use crate::terminal::{BAD, DIM, GOOD, Look, WARN, printable};
use crate::waterfall;

/// What `--json` prints. Fields are only ever added.
#[derive(Serialize)]
pub struct Report<'a> {
    session_id: &'a str,
    bot: &'a str,
    provider: &'a str,
    accelerator: Option<&'a str>,
    start: Option<&'a str>,
    stages_ms: &'a StagesMs,
    client_ms: &'a ClientMs,
    start_stages: &'a [Stage],
    audio: &'a Audio,
    incarnation: u32,
    restarted_because: Option<&'a EndReason>,
    outcome: Option<Outcome>,
    end_reason: Option<&'a EndReason>,
    heard_wav: Option<&'a Path>,
}

/// What went over the line.
#[derive(Serialize)]
pub struct Audio {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Sound before we spoke.
    pub greeting: bool,
    /// Sound after we began to speak.
    pub answer: bool,
    /// How much of what was said came back, 0 to 1.
    pub echo_similarity: f64,
}

impl Audio {
    /// Compares what was said with what was heard.
    pub fn of(placed: &Placed, said: &[i16]) -> Audio {
        let (answer, rate) = placed.heard.answer();
        let similarity = similarity(said, SEND_RATE, answer, rate);
        Audio {
            sent_bytes: placed.sent_bytes,
            received_bytes: placed.heard.bytes,
            greeting: placed.heard.greeting(),
            answer: placed.heard.answer_sound.is_some(),
            echo_similarity: (similarity * 1000.0).round() / 1000.0,
        }
    }
}

impl<'a> Report<'a> {
    pub fn new(placed: &'a Placed, audio: &'a Audio, heard_wav: Option<&'a Path>) -> Report<'a> {
        let session = &placed.session;
        Report {
            session_id: &session.id,
            bot: &session.bot,
            provider: &session.provider,
            accelerator: session.accelerator.as_deref(),
            start: session.start.as_deref(),
            stages_ms: &session.stages_ms,
            client_ms: &placed.client_ms,
            start_stages: &session.start_stages,
            audio,
            incarnation: session.incarnation,
            restarted_because: session.restarted_because.as_ref(),
            outcome: session.outcome,
            end_reason: session.end_reason.as_ref(),
            heard_wav,
        }
    }

    /// The same for people.
    pub fn picture(&self, placed: &Placed, look: Look) -> String {
        // A bot that waits for our word is heard when we have spoken: no matter of its start.
        let greeted = self.client_ms.first_sound.filter(|_| self.audio.greeting);
        let mut text = waterfall::render(&placed.session, greeted, look);
        let mut line = |label: &str, value: String| {
            let _ = writeln!(text, "  {} {value}", look.paint(DIM, format_args!("{label:<9}")));
        };
        line("greeting", self.greeting(look));
        line("answer", self.answer(look));
        line("audio", self.traffic(look));
        if let Some(restart) = waterfall::restart_line(&placed.session) {
            line("restart", restart);
        }
        line("end", waterfall::end_line(&placed.session, look));
        text.push('\n');
        text
    }

    fn greeting(&self, look: Look) -> String {
        match (self.audio.greeting, self.client_ms.first_sound) {
            (true, Some(at)) => {
                format!("{} heard {} after the request", yes(look), waterfall::span(at))
            }
            _ => format!("{} none", look.paint(WARN, look.glyph("–", "-"))),
        }
    }

    fn answer(&self, look: Look) -> String {
        if !self.audio.answer {
            return format!("{} nothing came back", look.paint(BAD, look.glyph("✗", "no")));
        }
        let dot = look.glyph("·", "|");
        let mut text = yes(look);
        if let Some(after) = self.client_ms.answer.filter(|after| *after >= 0.0) {
            let _ = write!(text, " {} after the last word {dot}", waterfall::span(after));
        }
        let similarity = self.audio.echo_similarity;
        if similarity >= ECHO {
            let _ = write!(text, " an echo (similarity {similarity:.2})");
        } else {
            let _ = write!(text, " not an echo (similarity {similarity:.2})");
        }
        text
    }

    fn traffic(&self, look: Look) -> String {
        let (up, down) = (look.glyph("↑", "sent"), look.glyph("↓", "received"));
        let mut text = format!(
            "{up} {}  {down} {}",
            kilobytes(self.audio.sent_bytes),
            kilobytes(self.audio.received_bytes)
        );
        if let Some(path) = self.heard_wav {
            let path = printable(&path.display().to_string());
            let _ = write!(text, "  {} {path}", look.glyph("→", "->"));
        }
        text
    }
}

fn yes(look: Look) -> String {
    look.paint(GOOD, look.glyph("✓", "yes"))
}

fn kilobytes(bytes: u64) -> String {
    format!("{:.0} kB", bytes as f64 / 1000.0)
}
