//! The end of an endless text: what a guest writes to its console, and QEMU to its stderr.
//!
//! Both are written by code that we do not trust, so neither may go to a file (it would fill the
//! host's disk) nor wait for a reader (it would stop the machine). They go through a socket and
//! a pipe; while this process lives, the last [`KEPT`] bytes are kept here; when it does not,
//! QEMU drops what it has nobody to give to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

/// How many bytes are kept.
const KEPT: usize = 16 << 10;

/// A shared view on the end of a stream.
#[derive(Clone, Debug)]
pub struct Tail {
    kept: Arc<Mutex<VecDeque<u8>>>,
    grown: watch::Receiver<()>,
}

impl Tail {
    /// Reads `from` to its end, in a task of its own.
    pub fn follow(mut from: impl AsyncRead + Send + Unpin + 'static) -> Tail {
        let (growing, grown) = watch::channel(());
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let tail = Tail { kept: Arc::clone(&kept), grown };
        tokio::spawn(async move {
            let mut block = [0_u8; 4096];
            while let Ok(length @ 1..) = from.read(&mut block).await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&block[..length]);
                let excess = kept.len().saturating_sub(KEPT);
                kept.drain(..excess);
                drop(kept);
                growing.send_replace(());
            }
        });
        tail
    }

    /// Waits until `needle` is in what is kept; `false` if the stream ended without it.
    pub async fn shows(&self, needle: &str) -> bool {
        let mut grown = self.grown.clone();
        loop {
            grown.mark_unchanged();
            if self.raw().contains(needle) {
                return true;
            }
            if grown.changed().await.is_err() {
                return self.raw().contains(needle);
            }
        }
    }

    /// Waits until the stream has ended.
    pub async fn ended(&self) {
        let mut grown = self.grown.clone();
        while grown.changed().await.is_ok() {}
    }

    /// The last lines, at most `bytes` long, fit for a log: no control characters.
    #[must_use]
    pub fn last(&self, bytes: usize) -> String {
        let text = self.raw();
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        let clean: String = lines
            .collect::<Vec<_>>()
            .join(" | ")
            .chars()
            .map(|char| if char.is_control() { '?' } else { char })
            .collect();
        let start = clean.len().saturating_sub(bytes);
        let start = (start..=clean.len()).find(|at| clean.is_char_boundary(*at)).unwrap_or(0);
        clean[start..].to_owned()
    }

    fn raw(&self) -> String {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(kept.make_contiguous()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn only_the_end_is_kept_and_needles_are_seen_when_they_come() {
        let (mut writer, reader) = tokio::io::duplex(1 << 10);
        let tail = Tail::follow(reader);
        let waiting = {
            let tail = tail.clone();
            tokio::spawn(async move { tail.shows("needle").await })
        };
        writer.write_all(&vec![b'x'; 3 * KEPT]).await.expect("read");
        writer.write_all(b"\x1b[1m\r\nthe needle\r\n").await.expect("read");
        assert!(waiting.await.expect("joined"));
        assert!(tail.raw().len() <= KEPT);
        let last = tail.last(20);
        assert!(last.ends_with("the needle") && last.len() <= 20, "{last:?}");
        assert!(!tail.last(100).contains('\u{1b}'));
        drop(writer);
        tail.ended().await;
        assert!(!tail.shows("nothing like it").await);
    }
}
