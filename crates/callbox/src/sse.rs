//! Reads `text/event-stream`. Small enough to own, and so that lengths are bounded: what a
//! server sends is ordinary input.

use std::mem;

/// Longest line and longest event, in bytes. A session with all its stages is some KiB.
const LONGEST: usize = 1024 * 1024;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `message` where the server gave no name.
    pub name: String,
    /// The data lines, joined.
    pub data: String,
}

/// More came without an end than anybody may send.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {LONGEST} bytes")]
pub struct TooLong;

/// Turns chunks of bytes, cut anywhere, into events.
#[derive(Default)]
pub struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    name: String,
    data: Option<String>,
}

impl Parser {
    /// Takes the next chunk; gives the events that it completes.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in chunk {
            let ends_crlf = byte == b'\n' && mem::take(&mut self.after_cr);
            self.after_cr = byte == b'\r';
            if ends_crlf {
                continue;
            }
            if byte == b'\n' || byte == b'\r' {
                let line = mem::take(&mut self.line);
                events.extend(self.take_line(&String::from_utf8_lossy(&line))?);
            } else if self.line.len() == LONGEST {
                return Err(TooLong);
            } else {
                self.line.push(byte);
            }
        }
        Ok(events)
    }

    fn take_line(&mut self, line: &str) -> Result<Option<Event>, TooLong> {
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        if line.is_empty() {
            return Ok(self.complete());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => match &mut self.data {
                Some(data) if data.len() + value.len() > LONGEST => return Err(TooLong),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // `id`, `retry` and comments (keep-alives) mean nothing to us.
            _ => {}
        }
        Ok(None)
    }

    fn complete(&mut self) -> Option<Event> {
        let name = mem::take(&mut self.name);
        let data = self.data.take()?;
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn events_arrive_however_the_bytes_are_cut() {
        let text = b"\xef\xbb\xbfevent: session\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n: keep-alive\n\ndata:x\n\nevent: empty\n\ndata: cut";
        let expected = vec![event("session", "{\"a\":\n1}"), event("message", "x")];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let got: Vec<Event> =
                text.chunks(size).flat_map(|chunk| parser.push(chunk).unwrap()).collect();
            assert_eq!(got, expected, "in chunks of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(&vec![b'x'; LONGEST + 1]), Err(TooLong));
        let mut parser = Parser::default();
        let line = [b"data: ".as_slice(), &vec![b'x'; LONGEST - 6], b"\n"].concat();
        assert_eq!(parser.push(&line), Ok(vec![]));
        assert_eq!(parser.push(&line), Err(TooLong));
    }
}
