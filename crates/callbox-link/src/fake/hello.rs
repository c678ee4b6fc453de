//! The agent's side of the hello, as the real agent does it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use callbox_protocol::agent::{HELLO, HELLO_OK};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::Carrier;

const DIGITS: usize = 32;
/// First line of an HTTP/2 connection. The host sends it after the hello it saw answered;
/// until then, further hellos may come.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r";

/// A carrier that outlives the HTTP/2 connection on it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Carrier>>);

impl Shared {
    pub(super) fn new(carrier: Carrier) -> Self {
        Self(Arc::new(Mutex::new(carrier)))
    }

    fn with<T>(&self, act: impl FnOnce(Pin<&mut Carrier>) -> T) -> T {
        let mut carrier = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(Pin::new(&mut *carrier))
    }
}

/// Answers hellos until one is followed by HTTP/2. Returns the bytes that HTTP/2 begins with,
/// or `None` if the carrier ended.
pub(super) async fn answer_hellos(carrier: &mut Shared) -> io::Result<Option<Bytes>> {
    let mut inbox = BytesMut::new();
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
        if inbox.len() > 8192 {
            inbox.advance(inbox.len() - 128);
        }
        if carrier.read_buf(&mut inbox).await? == 0 {
            return Ok(None);
        }
    }
}

fn number(line: &[u8]) -> Option<&[u8]> {
    let start = line.len().checked_sub(HELLO.len() + DIGITS)?;
    let number = line[start..].strip_prefix(HELLO.as_bytes())?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    number.iter().all(is_digit).then_some(number)
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|carrier| carrier.poll_read(cx, buf))
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|carrier| carrier.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|carrier| carrier.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end of an HTTP/2 connection is not the end of the carrier.
        Poll::Ready(Ok(()))
    }
}
