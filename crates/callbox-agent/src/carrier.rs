//! A carrier that outlives the HTTP/2 connections on it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

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

/// How much of what a connection read is remembered. More than a hello.
const HISTORY: usize = 1024;

/// A carrier, shared between its owner and the connection that runs on it.
pub(crate) struct Shared<C> {
    inner: Arc<Mutex<Inner<C>>>,
    /// Bytes that were read already and are to be read again.
    first: Bytes,
}

struct Inner<C> {
    carrier: C,
    /// When bytes came last.
    last_read: Instant,
    /// The end of what was read.
    history: Vec<u8>,
}

impl<C: Carrier> Shared<C> {
    pub(crate) fn new(carrier: C) -> Self {
        let history = Vec::with_capacity(2 * HISTORY);
        let inner = Inner { carrier, last_read: Instant::now(), history };
        Self { inner: Arc::new(Mutex::new(inner)), first: Bytes::new() }
    }

    /// Another handle, which reads `first` before all else.
    pub(crate) fn beginning_with(&self, first: Bytes) -> Self {
        self.inner().remember(&first);
        Self { inner: Arc::clone(&self.inner), first }
    }

    pub(crate) fn wait_for_host(&self, waiting: bool) {
        self.with(|mut carrier| carrier.wait_for_host(waiting));
    }

    /// What the last connection read at its end. When the next host comes before this side
    /// saw the last one go, its hello is here: the connection took it for a broken frame.
    pub(crate) fn take_history(&self) -> Vec<u8> {
        std::mem::take(&mut self.inner().history)
    }

    /// When bytes came last, as a question that can be asked while a connection reads.
    pub(crate) fn last_read(&self) -> impl Fn() -> Instant + use<C> {
        let inner = Arc::clone(&self.inner);
        move || inner.lock().unwrap_or_else(PoisonError::into_inner).last_read
    }

    fn with<T>(&self, act: impl FnOnce(Pin<&mut C>) -> T) -> T {
        act(Pin::new(&mut self.inner().carrier))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<C>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Carrier> Inner<C> {
    fn remember(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.last_read = Instant::now();
        }
        let bytes = &bytes[bytes.len().saturating_sub(HISTORY)..];
        let keep = HISTORY - bytes.len();
        let forget = self.history.len().saturating_sub(keep);
        self.history.drain(..forget);
        self.history.extend_from_slice(bytes);
    }
}

impl<C: Carrier> AsyncRead for Shared<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            let mut inner = self.inner();
            let before = buf.filled().len();
            let read = Pin::new(&mut inner.carrier).poll_read(cx, buf);
            inner.remember(&buf.filled()[before..]);
            return read;
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
