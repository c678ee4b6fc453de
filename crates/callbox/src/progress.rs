//! What happens while one waits: a line that moves on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use callbox_protocol::api::Session;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{terminal::Look, waterfall::restart_line};

/// Shows progress on standard error. Cheap where it is not wanted.
pub struct Progress {
    kind: Kind,
    told: Mutex<Told>,
}

enum Kind {
    Silent,
    Lines,
    Line(ProgressBar),
}

/// What has been shown.
#[derive(Default)]
struct Told {
    moments: Vec<&'static str>,
    /// The moments, for the moving line.
    reached: String,
    doing: &'static str,
    /// In the queue.
    place: Option<u32>,
    /// Which machine of the session it was.
    incarnation: u32,
}

impl Progress {
    /// As the terminal allows.
    pub fn new(quiet: bool) -> Progress {
        let kind = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Kind::Silent,
            (false, false) => Kind::Lines,
            (false, true) => Kind::Line(moving_line(Look::of_stderr())),
        };
        Progress { kind, told: Mutex::default() }
    }

    /// Shows nothing.
    pub fn silent() -> Progress {
        Progress { kind: Kind::Silent, told: Mutex::default() }
    }

    /// What is going on now. Telling the same again costs nothing.
    pub fn doing(&self, doing: &'static str) {
        let Ok(mut told) = self.told.lock() else { return };
        if told.doing == doing {
            return;
        }
        told.doing = doing;
        match &self.kind {
            Kind::Silent => {}
            Kind::Lines => eprintln!("{doing}"),
            Kind::Line(line) => line.set_message(told.line()),
        }
    }

    /// The session has moved on.
    pub fn session(&self, session: &Session) {
        let reached = moments(session);
        let place = session.queue.as_ref().map(|place| place.position);
        let Ok(mut told) = self.told.lock() else { return };
        match &self.kind {
            Kind::Silent => {}
            Kind::Lines => {
                if let Some(position) = place.filter(|_| told.place != place) {
                    eprintln!("waiting for room, position {position}");
                    told.place = place;
                }
                if session.incarnation > told.incarnation
                    && let Some(restart) = restart_line(session)
                {
                    eprintln!("{restart}");
                }
                told.incarnation = session.incarnation;
                for (name, ms) in reached {
                    if !told.moments.contains(&name) {
                        eprintln!("{name} +{ms:.0} ms");
                        told.moments.push(name);
                    }
                }
            }
            Kind::Line(line) => {
                let words: Vec<String> =
                    reached.iter().map(|(name, ms)| format!("{name} {ms:.0}")).collect();
                told.reached = match restart_line(session) {
                    Some(_) => format!("machine {} | {}", session.incarnation, words.join(" > ")),
                    None => words.join(" > "),
                };
                told.place = place;
                line.set_message(told.line());
            }
        }
    }

    /// What is going on now, in any words. Telling the same again costs nothing.
    pub fn tell(&self, text: &str) {
        let Ok(mut told) = self.told.lock() else { return };
        if told.reached == text {
            return;
        }
        text.clone_into(&mut told.reached);
        match &self.kind {
            Kind::Silent => {}
            Kind::Lines => eprintln!("{text}"),
            Kind::Line(line) => line.set_message(text.to_owned()),
        }
    }

    /// How many of how many are done.
    pub fn count(&self, done: usize, of: usize, failed: usize) {
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let text = format!("{done} of {of} starts{failures}");
        match &self.kind {
            Kind::Lines if done == of || done.is_multiple_of(10) => eprintln!("{text}"),
            Kind::Silent | Kind::Lines => {}
            Kind::Line(line) => line.set_message(text),
        }
    }

    /// How many of how many are done, where they are too many to tell each.
    pub fn many(&self, what: &str, done: usize, of: usize) {
        let step = (of / 10).max(1);
        match &self.kind {
            Kind::Lines if done == of || done.is_multiple_of(step) => {
                eprintln!("{done} of {of} {what}");
            }
            Kind::Silent | Kind::Lines => {}
            Kind::Line(line) => line.set_message(format!("{done} of {of} {what}")),
        }
    }

    /// Clears the moving line, before results are printed.
    pub fn done(&self) {
        if let Kind::Line(line) = &self.kind {
            line.finish_and_clear();
        }
    }
}

impl Told {
    fn line(&self) -> String {
        if let Some(position) = self.place {
            return format!("waiting for room, position {position}");
        }
        match (self.reached.as_str(), self.doing) {
            ("", doing) => doing.to_owned(),
            (reached, doing) => format!("{reached} ms | {doing}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done();
    }
}

/// The moments that were reached, in the order in which they came.
fn moments(session: &Session) -> Vec<(&'static str, f64)> {
    let ms = &session.stages_ms;
    let mut reached: Vec<(&'static str, f64)> = [
        ("accepted", ms.accepted),
        ("admitted", ms.admitted.filter(|at| *at > 0.0)),
        ("started", ms.started),
        ("ready", ms.ready),
        ("joined", ms.joined),
        ("audible", ms.audible),
        ("ended", ms.ended),
    ]
    .into_iter()
    .filter_map(|(name, at)| Some((name, at?)))
    .collect();
    reached.sort_by(|(_, left), (_, right)| left.total_cmp(right));
    reached
}

fn moving_line(look: Look) -> ProgressBar {
    let line = ProgressBar::new_spinner();
    let template = if look.colour {
        "{spinner:.cyan} {msg} {elapsed:.dim}"
    } else {
        "{spinner} {msg} {elapsed}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        line.set_style(style.tick_chars(look.glyph("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ", "|/-\\ ")));
    }
    line.enable_steady_tick(Duration::from_millis(100));
    line
}
