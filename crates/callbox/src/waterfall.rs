//! The picture of a start: five moments on one time axis. Pure; 80 columns.

mod axis;

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use callbox_protocol::api::{Outcome, Session, SessionState};

use self::axis::Axis;
use crate::terminal::{BAD, BOLD, DIM, GOOD, Look, WARN, printable};

/// Width of the label column.
const LABEL: usize = 13;
/// Width of the drawing.
const CHART: usize = 45;
/// Width of each of the two columns of numbers.
const NUMBER: usize = 9;

/// Who was admitted sooner than this, in milliseconds, did not wait.
const WAITED: f64 = 0.05;

/// One bar: from its cause to its moment.
struct Row {
    label: String,
    begin: f64,
    end: f64,
    style: Style,
    /// Parts of a start have no moment of their own.
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Moment,
    Part,
    Yours,
}

/// The whole picture, with a title; ends with an empty line. `greeted` is when the bot was heard
/// first by the client's own clock, in milliseconds from the request, if it spoke first.
pub fn render(session: &Session, greeted: Option<f64>, look: Look) -> String {
    let mut text = format!("\n{}\n\n", title(session, look));
    let rows = rows(session, greeted);
    let longest = rows.iter().map(|row| row.end).fold(0.0, f64::max);
    if longest == 0.0 {
        let _ = writeln!(text, "  {}\n", look.paint(DIM, "nothing has happened yet"));
        return text;
    }
    let axis = Axis::for_span(longest, CHART);
    let columns = format!("{:>NUMBER$}{:>NUMBER$}", "at", "took");
    let (unit, scale) = axis.labels();
    let scale = format!("{unit:<LABEL$}{scale}{columns}");
    let _ = writeln!(text, "  {}", look.paint(DIM, scale));
    let _ = writeln!(text, "  {:LABEL$}{}", "", look.paint(DIM, axis.ruler(look)));
    for row in &rows {
        let _ = writeln!(text, "{}", draw(row, &axis, look));
    }
    text.push('\n');
    text
}

/// What became of the bots before the present one, if there were any.
pub fn restart_line(session: &Session) -> Option<String> {
    let why = session.restarted_because.as_ref()?;
    let (code, detail) = (printable(&why.code), printable(&why.detail));
    Some(format!("machine {}, as the bot before died: {detail} ({code})", session.incarnation))
}

/// `ended: completed (client-left) after 4.2 s`, or where the session is now.
pub fn end_line(session: &Session, look: Look) -> String {
    let state = state_word(session.state);
    let mut text = match session.outcome {
        Some(Outcome::Completed) => look.paint(GOOD, "completed"),
        Some(Outcome::Failed) => look.paint(BAD.bold(), "failed"),
        None => look.paint(WARN, state),
    };
    if let Some(reason) = &session.end_reason {
        let (code, detail) = (printable(&reason.code), printable(&reason.detail));
        let _ = write!(text, " {} {code}", look.glyph("·", "|"));
        if !detail.is_empty() {
            let _ = write!(text, ": {detail}");
        }
    }
    if let Some(ended) = session.stages_ms.ended {
        let dot = look.glyph("·", "|");
        let _ = write!(text, "{}", look.paint(DIM, format!(" {dot} {}", span(ended))));
    }
    text
}

/// The word of a state, as in the API.
pub fn state_word(state: SessionState) -> &'static str {
    match state {
        SessionState::Queued => "queued",
        SessionState::Starting => "starting",
        SessionState::Joining => "joining",
        SessionState::Live => "live",
        SessionState::Ending => "ending",
        SessionState::Ended => "ended",
    }
}

/// Milliseconds for people: `3.2 ms`, `212 ms`, `12.3 s`.
pub fn span(ms: f64) -> String {
    match ms {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 9_999.5 => format!("{ms:.0} ms"),
        ms if ms < 999_950.0 => format!("{:.1} s", ms / 1e3),
        ms if ms < 1e9 => format!("{:.0} min", ms / 6e4),
        _ => "for ever".to_owned(),
    }
}

fn title(session: &Session, look: Look) -> String {
    let dot = look.paint(DIM, look.glyph("·", "|"));
    let mut how = vec![printable(&session.provider)];
    how.extend(session.accelerator.as_deref().map(printable));
    how.extend(session.start.as_deref().map(printable));
    let how = how.join(&format!(" {dot} "));
    let plain_width = 2
        + session.bot.chars().count()
        + 3
        + session.provider.chars().count()
        + [&session.accelerator, &session.start]
            .iter()
            .filter_map(|part| part.as_ref())
            .map(|part| part.chars().count() + 3)
            .sum::<usize>();
    let gap = 78usize.saturating_sub(plain_width + session.id.chars().count()).max(2);
    format!(
        "  {} {dot} {how}{:gap$}{}",
        look.paint(BOLD, printable(&session.bot)),
        "",
        look.paint(DIM, printable(&session.id)),
    )
}

fn rows(session: &Session, greeted: Option<f64>) -> Vec<Row> {
    let ms = &session.stages_ms;
    let moment = |label: &str, begin: Option<f64>, end: Option<f64>, colour: AnsiColor| {
        Some(Row {
            label: label.to_owned(),
            begin: sane(begin).unwrap_or(0.0),
            end: sane(end)?,
            style: colour.on_default(),
            kind: Kind::Moment,
        })
    };
    let mut rows = Vec::new();
    rows.extend(moment("accepted", None, ms.accepted, AnsiColor::White));
    // Only of those that had to wait for room.
    let queued = sane(ms.admitted).filter(|admitted| *admitted >= WAITED);
    rows.extend(moment("admitted", ms.accepted, queued, AnsiColor::White));
    rows.extend(moment("started", queued.or(ms.accepted), ms.started, AnsiColor::Cyan));
    rows.extend(parts(session));
    rows.extend(moment("ready", ms.started, ms.ready, AnsiColor::Blue));
    rows.extend(moment("joined", ms.accepted, ms.joined, AnsiColor::Yellow));
    // The bot speaks once both are there.
    let both = Some(ms.ready.unwrap_or(0.0).max(ms.joined.unwrap_or(0.0)));
    rows.extend(moment("audible", both, ms.audible, AnsiColor::Green));
    if let Some(at) = sane(greeted) {
        rows.push(Row {
            label: "you hear".to_owned(),
            begin: at,
            end: at,
            style: AnsiColor::Magenta.on_default(),
            kind: Kind::Yours,
        });
    }
    for row in &mut rows {
        row.begin = row.begin.min(row.end);
    }
    rows
}

/// The parts of the machine's start, one after the other, so that the last ends at `started`.
fn parts(session: &Session) -> Vec<Row> {
    let lengths: Vec<(&str, f64)> = session
        .start_stages
        .iter()
        .filter_map(|stage| Some((stage.name.as_str(), sane(Some(stage.ms))?)))
        .collect();
    let sum: f64 = lengths.iter().map(|(_, ms)| ms).sum();
    let end = sane(session.stages_ms.started).unwrap_or(sum);
    let mut at = (end - sum).max(0.0);
    let style = AnsiColor::Cyan.on_default().dimmed();
    let mut rows = Vec::new();
    for (name, ms) in lengths {
        rows.push(Row {
            label: format!("  {name}"),
            begin: at,
            end: at + ms,
            style,
            kind: Kind::Part,
        });
        at += ms;
    }
    rows
}

fn draw(row: &Row, axis: &Axis, look: Look) -> String {
    let label: String = printable(&row.label).chars().take(LABEL - 1).collect();
    let label = match row.kind {
        Kind::Part => look.paint(DIM, format!("{label:<LABEL$}")),
        Kind::Moment | Kind::Yours => format!("{label:<LABEL$}"),
    };
    let (before, bar, after) = axis.bar(row.begin, row.end, row.kind == Kind::Part, look);
    let bar = look.paint(row.style, bar);
    let took = span(row.end - row.begin);
    let numbers = match row.kind {
        Kind::Moment if row.end == 0.0 => format!("{:>NUMBER$}", "0 ms"),
        Kind::Moment => {
            let at = look.paint(BOLD, format!("{:>NUMBER$}", span(row.end)));
            format!("{at}{}", look.paint(DIM, format!("{took:>NUMBER$}")))
        }
        Kind::Part => look.paint(DIM, format!("{:>NUMBER$}{took:>NUMBER$}", "")),
        Kind::Yours => look.paint(BOLD, format!("{:>NUMBER$}", span(row.end))),
    };
    format!("  {label}{:before$}{bar}{:after$}{numbers}", "", "").trim_end().to_owned()
}

/// Times come from a server: anything that cannot be drawn is not.
fn sane(ms: Option<f64>) -> Option<f64> {
    ms.filter(|ms| ms.is_finite()).map(|ms| ms.clamp(0.0, 1e12))
}

#[cfg(test)]
mod tests;
