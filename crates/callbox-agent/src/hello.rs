//! The agent's side of the hello.
//!
//! The carrier may hold anything: what a template was sent before it was frozen, hellos that
//! piled up while the machine booted, padding with which a host gets through to an agent that
//! still believes in its predecessor. All of it is skipped. Every hello is answered, as only
//! the host knows which one is its latest; the start of HTTP/2 tells that it saw the answer.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use callbox_protocol::agent::{HELLO, HELLO_OK};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const DIGITS: usize = 32;
/// First line of an HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r";
/// Longest line that is looked at, and what is kept of a longer one.
const MAX_LINE: usize = 4096;
const KEEP: usize = 128;

/// Answers hellos until one is followed by HTTP/2. Returns the bytes that HTTP/2 begins with,
/// or `None` if the carrier ended. `seen` was read from the carrier already.
pub(crate) async fn answer<C>(carrier: &mut C, seen: &[u8]) -> io::Result<Option<Bytes>>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut inbox = BytesMut::with_capacity(MAX_LINE);
    inbox.extend_from_slice(seen);
    let mut answered = false;
    loop {
        while let Some(end) = inbox.iter().position(|byte| *byte == b'\n') {
            if answered && inbox[..end] == *PREFACE {
                return Ok(Some(inbox.freeze()));
            }
            let line = inbox.split_to(end + 1);
            if let Some(number) = number(&line[..end]) {
                let answer = [HELLO_OK.as_bytes(), number, b"\n"].concat();
                carrier.write_all(&answer).await?;
                carrier.flush().await?;
                answered = true;
            }
        }
        if inbox.len() > MAX_LINE {
            inbox.advance(inbox.len() - KEEP);
        }
        if carrier.read_buf(&mut inbox).await? == 0 {
            return Ok(None);
        }
    }
}

/// The number of the hello on this line. Rubbish may stand before it.
fn number(line: &[u8]) -> Option<&[u8]> {
    let start = line.len().checked_sub(HELLO.len() + DIGITS)?;
    let number = line[start..].strip_prefix(HELLO.as_bytes())?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    number.iter().all(is_digit).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_hellos_are_answered_until_http_begins() {
        let (mut host, mut agent) = tokio::io::duplex(64 * 1024);
        let (one, two) = ("1".repeat(DIGITS), "2".repeat(DIGITS));
        let sent = format!(
            "{}\nPRI * HTTP/2.0\r\nrubbish{HELLO}{one}\n{HELLO}{}\n\n\n{HELLO}{two}\nPRI * HTTP/2.0\r\n\r\nSM",
            "x".repeat(3 * MAX_LINE),
            "X".repeat(DIGITS),
        );
        host.write_all(sent.as_bytes()).await.expect("room");
        let first = answer(&mut agent, b"").await.expect("no error").expect("a connection");
        assert_eq!(first, "PRI * HTTP/2.0\r\n\r\nSM");
        drop(agent);
        let mut answers = String::new();
        host.read_to_string(&mut answers).await.expect("text");
        assert_eq!(answers, format!("{HELLO_OK}{one}\n{HELLO_OK}{two}\n"));
    }

    #[tokio::test]
    async fn the_end_of_the_carrier_is_no_connection() {
        let (host, mut agent) = tokio::io::duplex(64);
        drop(host);
        assert_eq!(answer(&mut agent, b"").await.expect("no error"), None);
    }
}
