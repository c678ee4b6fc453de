//! What the bot writes, line by line.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use callbox_protocol::agent::LogStream;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep_until};

use crate::logs::{Logs, MAX_TEXT};

/// Within one period the bot may write so much; then its pipe waits for the next. Far more
/// than any log, and little enough that a bot that writes garbage as fast as it can leaves
/// the machine's only processor to the call.
const PERIOD: Duration = Duration::from_millis(100);
const BYTES_PER_PERIOD: usize = 128 * 1024;
const LINES_PER_PERIOD: usize = 512;

/// Reads a pipe to its end.
pub(crate) async fn read_lines(pipe: OwnedFd, stream: LogStream, logs: Arc<Logs>) {
    let Ok(mut pipe) = Receiver::from_owned_fd(pipe) else {
        return;
    };
    let mut lines = Lines::default();
    let mut chunk = vec![0; 8 * 1024];
    let (mut period_ends, mut bytes, mut count) = (Instant::now() + PERIOD, 0, 0);
    // An error cannot be told from the end of a pipe by anybody who could do something.
    while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
        bytes += length;
        lines.take(&chunk[..length], |line| {
            count += 1;
            logs.push(stream, text(line));
        });
        let spent = bytes > BYTES_PER_PERIOD || count > LINES_PER_PERIOD;
        if spent {
            sleep_until(period_ends).await;
        }
        if Instant::now() >= period_ends {
            (period_ends, bytes, count) = (Instant::now() + PERIOD, 0, 0);
        }
    }
    lines.finish(|line| logs.push(stream, text(line)));
}

/// Cuts bytes into lines of at most [`MAX_TEXT`] bytes.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn take(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = MAX_TEXT - self.begun.len();
            let newline = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            let (part, rest) = match newline {
                Some(at) => (&bytes[..at], &bytes[at + 1..]),
                None => bytes.split_at(bytes.len().min(room)),
            };
            self.begun.extend_from_slice(part);
            if newline.is_some() || self.begun.len() == MAX_TEXT && !rest.is_empty() {
                line(&self.begun);
                self.begun.clear();
            }
            bytes = rest;
        }
    }

    fn finish(self, mut line: impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            line(&self.begun);
        }
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<usize> {
        let (mut lines, mut lengths) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.take(chunk, |line| lengths.push(line.len()));
        }
        lines.finish(|line| lengths.push(line.len()));
        lengths
    }

    #[test]
    fn lines_are_cut_at_newlines_and_at_the_limit() {
        assert_eq!(cut(&[b"ab\n\nc", b"d\n", b"e"]), [2, 0, 3 - 1, 1]);
        let long = vec![b'x'; MAX_TEXT];
        assert_eq!(cut(&[&long, b"\n"]), [MAX_TEXT]);
        assert_eq!(cut(&[&long, b"y\n"]), [MAX_TEXT, 1]);
        let longer = vec![b'x'; 2 * MAX_TEXT + 1];
        assert_eq!(cut(&[&longer]), [MAX_TEXT, MAX_TEXT, 1]);
    }

    #[test]
    fn what_is_not_text_becomes_text() {
        assert_eq!(text(b"ok\r"), "ok");
        assert_eq!(text(b"\xff\xfea"), "\u{fffd}\u{fffd}a");
    }
}
