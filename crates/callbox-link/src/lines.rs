use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::calls::accepted;
use crate::link::broken;
use crate::{Link, LinkError};

/// Longest line that is read from the agent, in bytes. A log line has at most 8192 bytes of
/// text, each of which JSON may write as six.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// The lines of `GET /v1/{call}?after=N`, one value of JSON each.
pub(crate) fn read<T: DeserializeOwned + Send + 'static>(
    link: Link,
    call: &'static str,
    after: u64,
) -> BoxStream<'static, Result<T, LinkError>> {
    let state = Reader::Start { link, after };
    stream::unfold(state, move |state| async move {
        match next(state, call).await {
            Ok(Some((value, state))) => Some((Ok(value), state)),
            Ok(None) => None,
            Err(error) => Some((Err(error), Reader::Done)),
        }
    })
    .boxed()
}

enum Reader {
    Start { link: Link, after: u64 },
    Open(Open),
    Done,
}

struct Open {
    /// Keeps the connection alive as long as somebody listens.
    _link: Link,
    body: Incoming,
    buffer: BytesMut,
    /// How much of `buffer` is known to hold no newline.
    searched: usize,
}

async fn next<T: DeserializeOwned>(
    state: Reader,
    call: &'static str,
) -> Result<Option<(T, Reader)>, LinkError> {
    let mut open = match state {
        Reader::Start { link, after } => start(link, call, after).await?,
        Reader::Open(open) => open,
        Reader::Done => return Ok(None),
    };
    while let Some(line) = open.line(call).await? {
        if line.is_empty() {
            continue;
        }
        let value = serde_json::from_slice(&line).map_err(|error| LinkError::Protocol {
            call,
            what: format!("a line is not the JSON that was expected (column {})", error.column()),
        })?;
        return Ok(Some((value, Reader::Open(open))));
    }
    Ok(None)
}

async fn start(link: Link, call: &'static str, after: u64) -> Result<Open, LinkError> {
    let request = Request::get(format!("http://agent/v1/{call}?after={after}"))
        .body(Full::new(Bytes::new()))
        .map_err(|error| LinkError::Protocol { call, what: error.to_string() })?;
    let response = accepted(call, link.send(call, request).await?).await?;
    Ok(Open { _link: link, body: response.into_body(), buffer: BytesMut::new(), searched: 0 })
}

impl Open {
    /// The next line without its newline, or `None` at the end.
    async fn line(&mut self, call: &'static str) -> Result<Option<Bytes>, LinkError> {
        loop {
            let unseen = &self.buffer[self.searched..];
            let newline = unseen.iter().position(|byte| *byte == b'\n');
            let length = self.searched + newline.unwrap_or(unseen.len());
            if length > MAX_LINE_BYTES {
                return Err(LinkError::TooLarge { call, limit: MAX_LINE_BYTES });
            }
            if newline.is_some() {
                let line = self.buffer.split_to(length).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = length;
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                // Half a line: the agent was cut off while it wrote.
                None => return Err(LinkError::Closed),
                Some(Err(error)) => return Err(broken(call, &error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
