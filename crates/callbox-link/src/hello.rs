//! The host's side of the hello.
//!
//! Three traps shape this file. A machine that still boots does not read: hellos pile up in
//! the carrier and all get answered at once, so only the answer to the latest one counts. An
//! agent can be slower than the retry: then the answer to the latest hello would always be
//! late, so the wait grows and a late answer starts it anew. And an agent may still believe in
//! a connection whose host died in the middle of a frame: then it swallows hellos as payload,
//! so now and then a hello comes with enough newlines before it to fill up any frame.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use callbox_protocol::agent::{HELLO, HELLO_OK, HELLO_RETRY_MS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use crate::{Carrier, calls::random_hex};

/// Digits of a hello's number.
const DIGITS: usize = 32;
/// Longest wait between two hellos.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Every how many hellos one comes with padding.
const PAD_EVERY: u32 = 3;
/// The largest HTTP/2 frame that an agent accepts, with its header.
const PADDING: usize = 16 * 1024 + 9;
/// How much is kept of a line that does not end. Longer than any answer.
const KEEP: usize = 128;
/// Longest line that is looked at.
const MAX_LINE: usize = 8 * 1024;

/// Says hello until the agent answers the latest one. Returns what followed the answer.
pub(crate) async fn say_hello(carrier: &mut Carrier) -> io::Result<Bytes> {
    let (mut reader, mut writer) = tokio::io::split(carrier);
    let mut out = BytesMut::new();
    let mut inbox = BytesMut::with_capacity(4096);
    let mut hellos = Hellos::default();
    hellos.next(&mut out);
    let mut wait = Duration::from_millis(HELLO_RETRY_MS);
    let mut retry_at = Instant::now() + wait;
    loop {
        tokio::select! {
            biased;
            read = reader.read_buf(&mut inbox) => {
                if read? == 0 {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the carrier ended before the agent answered",
                    ));
                }
                match hellos.look_for_answer(&mut inbox) {
                    Answer::None => {}
                    Answer::Latest => return Ok(inbox.freeze()),
                    Answer::Late => retry_at = Instant::now() + wait,
                }
            }
            wrote = writer.write(&out), if !out.is_empty() => {
                match wrote? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => out.advance(count),
                }
                if out.is_empty() {
                    writer.flush().await?;
                }
            }
            () = sleep_until(retry_at) => {
                // A carrier that does not take the last hello will not take another one.
                if out.is_empty() {
                    hellos.next(&mut out);
                    wait = (wait * 2).min(MAX_WAIT);
                }
                retry_at = Instant::now() + wait;
            }
        }
    }
}

enum Answer {
    None,
    Late,
    Latest,
}

/// The hellos of one opening.
#[derive(Default)]
struct Hellos {
    latest: String,
    earlier: Vec<String>,
}

impl Hellos {
    fn next(&mut self, out: &mut BytesMut) {
        let number = random_hex(DIGITS / 2);
        let before = std::mem::replace(&mut self.latest, number);
        if !before.is_empty() {
            self.earlier.push(before);
        }
        if (self.earlier.len() as u32 + 1).is_multiple_of(PAD_EVERY) {
            out.resize(out.len() + PADDING, b'\n');
        }
        out.extend_from_slice(HELLO.as_bytes());
        out.extend_from_slice(self.latest.as_bytes());
        out.extend_from_slice(b"\n");
    }

    /// Eats lines up to and including the answer to the latest hello.
    fn look_for_answer(&self, inbox: &mut BytesMut) -> Answer {
        let mut found = Answer::None;
        while let Some(end) = inbox.iter().position(|byte| *byte == b'\n') {
            let line = inbox.split_to(end + 1);
            let Some(number) = answered(&line[..end]) else {
                continue;
            };
            if number == self.latest.as_bytes() {
                return Answer::Latest;
            }
            if self.earlier.iter().any(|one| one.as_bytes() == number) {
                found = Answer::Late;
            }
        }
        if inbox.len() > MAX_LINE {
            inbox.advance(inbox.len() - KEEP);
        }
        found
    }
}

/// The number of the hello that this line answers. Rubbish may stand before it.
fn answered(line: &[u8]) -> Option<&[u8]> {
    let start = line.len().checked_sub(HELLO_OK.len() + DIGITS)?;
    line[start..].strip_prefix(HELLO_OK.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_behind_rubbish_on_its_line() {
        let line = format!("\u{0}rubbish{HELLO_OK}{}", "0f".repeat(16));
        assert_eq!(answered(line.as_bytes()), Some("0f".repeat(16).as_bytes()));
        assert_eq!(answered(b"CALLBOX/1 OK 0f"), None);
        assert_eq!(answered(b""), None);
    }

    #[test]
    fn endless_lines_do_not_fill_memory() {
        let mut hellos = Hellos::default();
        hellos.next(&mut BytesMut::new());
        let mut inbox = BytesMut::from(vec![b'x'; 3 * MAX_LINE].as_slice());
        assert!(matches!(hellos.look_for_answer(&mut inbox), Answer::None));
        assert_eq!(inbox.len(), KEEP);
    }
}
