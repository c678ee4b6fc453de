//! A carrier that outlives the HTTP/2 connections on it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the agent is spoken to over.
pub(crate) trait Carrier: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Called with `true` between two connections: on a port that has no connections of its
    /// own, the absence of a host is then not the end.
    fn wait_for_host(&mut self, waiting: bool) {
        let _ = waiting;
    }
}

impl Carrier for tokio::net::UnixStream {}

/// A carrier, shared between its owner and the connection that runs on it.
pub(crate) struct Shared<C> {
    carrier: Arc<Mutex<C>>,
    /// Bytes that were read already and are to be read again.
    first: Bytes,
}

impl<C: Carrier> Shared<C> {
    pub(crate) fn new(carrier: C) -> Self {
        Self { carrier: Arc::new(Mutex::new(carrier)), first: Bytes::new() }
    }

    /// Another handle, which reads `first` before all else.
    pub(crate) fn beginning_with(&self, first: Bytes) -> Self {
        Self { carrier: Arc::clone(&self.carrier), first }
    }

    pub(crate) fn wait_for_host(&self, waiting: bool) {
        self.with(|mut carrier| carrier.wait_for_host(waiting));
    }

    fn with<T>(&self, act: impl FnOnce(Pin<&mut C>) -> T) -> T {
        let mut carrier = self.carrier.lock().unwrap_or_else(PoisonError::into_inner);
        act(Pin::new(&mut *carrier))
    }
}

impl<C: Carrier> AsyncRead for Shared<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return self.with(|carrier| carrier.poll_read(cx, buf));
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<C: Carrier> AsyncWrite for Shared<C> {
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
        // The end of an HTTP/2 connection is not the end of its carrier.
        Poll::Ready(Ok(()))
    }
}
