//! Streams of lines that a host can follow, and pick up again after the last line it saw.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http_body_util::StreamBody;
use hyper::body::{Body, Frame};
use serde::Serialize;
use tokio::sync::watch;

/// How much is written at once, so that following the log does not hold up a call's audio.
const BATCH: usize = 16 * 1024;

/// Numbered lines.
pub(crate) trait Feed: Send + Sync + 'static {
    /// The lines after number `after`, about `limit` bytes of them, and the number of the last.
    fn read(&self, after: u64, limit: usize) -> (Vec<u8>, u64);
    /// Tells when there may be more.
    fn changes(&self) -> watch::Receiver<()>;
}

/// Follows a feed until the connection is closing.
pub(crate) fn follow(
    feed: Arc<dyn Feed>,
    after: u64,
    closing: watch::Receiver<bool>,
) -> impl Body<Data = Bytes, Error = Infallible> + Send {
    let start = (feed.changes(), closing, feed, after);
    StreamBody::new(stream::unfold(start, |(mut changes, mut closing, feed, after)| async move {
        loop {
            changes.mark_unchanged();
            let (lines, last) = feed.read(after, BATCH);
            if !lines.is_empty() {
                let frame = Frame::data(Bytes::from(lines));
                return Some((Ok(frame), (changes, closing, feed, last)));
            }
            tokio::select! {
                changed = changes.changed() => changed.ok()?,
                _ = closing.wait_for(|closing| *closing) => return None,
            }
        }
    }))
}

/// Appends `value` as one line of JSON.
pub(crate) fn write_line(out: &mut Vec<u8>, value: &impl Serialize) {
    let start = out.len();
    match serde_json::to_writer(&mut *out, value) {
        Ok(()) => out.push(b'\n'),
        Err(_) => out.truncate(start),
    }
}
