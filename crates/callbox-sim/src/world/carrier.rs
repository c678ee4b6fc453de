//! The line between a dispatcher and a machine: the machine knows whether somebody is there, and a
//! silent one lets nothing out.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use callbox_link::Carrier;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// What all lines to one machine share.
#[derive(Debug)]
pub struct Lines {
    open: AtomicUsize,
    silent: AtomicBool,
    gone: AtomicBool,
    last_seen: Mutex<Instant>,
    readers: Mutex<Vec<Waker>>,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines {
            open: AtomicUsize::new(0),
            silent: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            last_seen: Mutex::new(Instant::now()),
            readers: Mutex::default(),
        }
    }
}

impl Lines {
    /// Since when nobody has been there; none while somebody is.
    pub fn alone_since(&self) -> Option<Instant> {
        let nobody = self.open.load(Ordering::Relaxed) == 0;
        nobody.then(|| *self.last_seen())
    }

    /// When somebody was last there.
    pub fn last_seen(&self) -> MutexGuard<'_, Instant> {
        self.last_seen.lock().expect("no panic while held")
    }

    /// Nothing comes out any more.
    pub fn fall_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// Whether nothing comes out any more.
    pub fn silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// The machine is gone: all lines break.
    pub fn cut(&self) {
        self.gone.store(true, Ordering::Relaxed);
        for waker in self.readers.lock().expect("no panic while held").drain(..) {
            waker.wake();
        }
    }
}

/// One line.
pub struct Line {
    inner: Carrier,
    lines: Arc<Lines>,
}

impl Line {
    /// Over this carrier.
    pub fn new(inner: Carrier, lines: &Arc<Lines>) -> Line {
        lines.open.fetch_add(1, Ordering::Relaxed);
        Line { inner, lines: Arc::clone(lines) }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.lines.open.fetch_sub(1, Ordering::Relaxed);
        *self.lines.last_seen() = Instant::now();
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.lines.gone.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        if self.lines.silent() {
            let mut readers = self.lines.readers.lock().expect("no panic while held");
            readers.push(context.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
