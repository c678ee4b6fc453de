//! What the terminal can show: colours, and letters beyond ASCII.

use std::env;
use std::fmt::Display;
use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};

/// How to draw. Decided once per stream, handed to pure functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Colours and weights may be used.
    pub colour: bool,
    /// Letters beyond ASCII may be used.
    pub unicode: bool,
}

impl Look {
    /// For standard output.
    pub fn of_stdout() -> Look {
        Look {
            colour: std::io::stdout().is_terminal() && wants_colour(|name| env::var(name).ok()),
            unicode: shows_unicode(|name| env::var(name).ok()),
        }
    }

    /// For standard error.
    pub fn of_stderr() -> Look {
        Look {
            colour: std::io::stderr().is_terminal() && wants_colour(|name| env::var(name).ok()),
            ..Look::of_stdout()
        }
    }

    /// `text` in `style`, or as it is.
    pub fn paint(self, style: Style, text: impl Display) -> String {
        if self.colour {
            format!("{}{text}{}", style.render(), style.render_reset())
        } else {
            text.to_string()
        }
    }

    /// The first where unicode is shown, else the second.
    pub fn glyph(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }
}

/// For what is there but not the point.
pub const DIM: Style = Style::new().dimmed();
/// For what is the point.
pub const BOLD: Style = Style::new().bold();
/// It worked.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// It did not.
pub const BAD: Style = AnsiColor::Red.on_default();
/// Look at this.
pub const WARN: Style = AnsiColor::Yellow.on_default();

/// `text` without the characters that steer a terminal: what a server or a bot wrote is shown,
/// never obeyed.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn wants_colour(var: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name| var(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && var("TERM").as_deref() != Some("dumb")
}

fn shows_unicode(var: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| var(name).filter(|value| !value.is_empty()));
    match locale {
        Some(locale) => {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        }
        // No locale at all is what containers have; their terminals are UTF-8 all the same.
        None => !matches!(var("TERM").as_deref(), Some("linux" | "dumb")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn colours_follow_no_color_and_dumb_terminals() {
        assert!(wants_colour(vars(&[])));
        assert!(wants_colour(vars(&[("NO_COLOR", "")])));
        assert!(!wants_colour(vars(&[("NO_COLOR", "1")])));
        assert!(!wants_colour(vars(&[("TERM", "dumb")])));
    }

    #[test]
    fn unicode_follows_the_first_locale_that_is_set() {
        assert!(shows_unicode(vars(&[("LANG", "C.UTF-8")])));
        assert!(!shows_unicode(vars(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")])));
        assert!(shows_unicode(vars(&[])));
        assert!(!shows_unicode(vars(&[("TERM", "linux")])));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\tc\n"), "a\u{fffd}[31mb\tc\u{fffd}");
    }
}
