//! The virtio-serial port to the host, as a stream of bytes.
//!
//! What is special about `/dev/vportNpM` (Linux' `virtio_console.c`), and why tokio's own
//! readiness cannot be used for it:
//!
//! - While no host is connected, `poll` reports IN and HUP for ever, and `read` gives 0. tokio
//!   never forgets a HUP, and would spin. So the port sits in an epoll set of its own, edge
//!   triggered, where each change is reported once; tokio watches *that* set.
//! - `read` gives 0 for "no host" and not for an end: the next host comes over the same file.
//! - `write` gives EAGAIN while the queue to the host is full, *and* while no host is there.
//!   The driver tells of room in the queue only on some kernels, so a writer also looks again
//!   by itself after a moment.
//!
//! A port is used by one task at a time, for reading and writing: there is one set, and so
//! one waker.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::carrier::Carrier;
use crate::kernel;

const PORTS: &str = "/sys/class/virtio-ports";
/// How long a writer waits for room in the queue before it looks by itself.
const ROOM_PAUSE: Duration = Duration::from_millis(3);

/// One port.
pub(crate) struct Port {
    file: OwnedFd,
    edges: AsyncFd<OwnedFd>,
    look_again: Pin<Box<Sleep>>,
    /// Whether the absence of a host is waited out, not reported as the end.
    wait_for_host: bool,
    /// Whether the end was reported: nobody will read what is written now.
    host_gone: bool,
}

impl Port {
    /// Opens the port of this name, if the machine has it. Must be called inside the runtime.
    pub(crate) fn open(name: &str) -> io::Result<Option<Port>> {
        let Some(device) = find(name)? else {
            return Ok(None);
        };
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = open(format!("/dev/{device}"), flags, Mode::empty())?;
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let events = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&set, &file, epoll::EventData::new_u64(0), events)?;
        Ok(Some(Port {
            file,
            edges: kernel::watch_readable(set)?,
            look_again: Box::pin(sleep(Duration::ZERO)),
            wait_for_host: true,
            host_gone: false,
        }))
    }

    /// Waits until something about the port has changed.
    fn poll_edge(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut set = ready!(self.edges.poll_read_ready(cx))?;
            let mut events = Vec::with_capacity(1);
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(self.edges.get_ref(), buffer, Some(&now)) {
                Ok(0) | Err(Errno::INTR) => set.clear_ready(),
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

/// Name of the device, from the names that the host gave its ports.
fn find(wanted: &str) -> io::Result<Option<String>> {
    for port in fs::read_dir(PORTS)? {
        let port = port?;
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim_end() == wanted {
            return Ok(port.file_name().into_string().ok());
        }
    }
    Ok(None)
}

impl Carrier for Port {
    fn wait_for_host(&mut self, waiting: bool) {
        self.wait_for_host = waiting;
        self.host_gone = false;
    }
}

impl AsyncRead for Port {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match rustix::io::read(&self.file, buf.initialize_unfilled()) {
                Ok(0) if !self.wait_for_host => {
                    self.host_gone = true;
                    return Poll::Ready(Ok(()));
                }
                Ok(0) | Err(Errno::AGAIN) => ready!(self.poll_edge(cx))?,
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.host_gone {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            match rustix::io::write(&self.file, buf) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
            if self.poll_edge(cx)?.is_ready() {
                // The change may have been meant for the reader, who is the same task.
                cx.waker().wake_by_ref();
                continue;
            }
            if self.look_again.is_elapsed() {
                self.look_again.as_mut().reset(Instant::now() + ROOM_PAUSE);
            }
            ready!(self.look_again.as_mut().poll(cx));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
