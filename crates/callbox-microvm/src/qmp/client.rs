//! The client's side of one QMP connection. See the module header for the rules.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::QmpError;
use super::wire::{Event, Incoming};

/// Longest line that is accepted, in bytes. QEMU's longest real ones are a few KiB.
const MAX_LINE: usize = 1 << 20;
/// How many events are kept for a later [`Qmp::wait_event`]; the oldest go first.
const MAX_EVENTS: usize = 256;

/// A QMP connection that is ready for commands.
pub struct Qmp {
    stream: UnixStream,
    /// Bytes read that are not yet a line. A field, so that a cancelled read loses nothing.
    buffer: Vec<u8>,
    events: VecDeque<Event>,
    /// Set while an answer is owed or once the stream cannot be trusted.
    broken: bool,
}

impl Qmp {
    /// Connects to the socket at `path` and negotiates.
    ///
    /// # Errors
    /// When nothing listens there or what listens does not greet as QEMU does.
    pub async fn connect(path: &Path) -> Result<Qmp, QmpError> {
        let stream = UnixStream::connect(path).await.map_err(|source| QmpError::Io {
            doing: format!("connect to {}", path.display()),
            source,
        })?;
        Qmp::open(stream).await
    }

    /// Waits for the greeting on `stream` and negotiates.
    ///
    /// # Errors
    /// When the other side hangs up or does not greet as QEMU does.
    pub async fn open(stream: UnixStream) -> Result<Qmp, QmpError> {
        let mut qmp = Qmp { stream, buffer: Vec::new(), events: VecDeque::new(), broken: false };
        match qmp.next("read the greeting").await? {
            Incoming::Greeting => {}
            other => return Err(QmpError::Protocol(format!("greeted with {other:?}"))),
        }
        qmp.execute("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// Runs one command and returns its answer. `arguments` may be null.
    ///
    /// Not safe to cancel: the answer would be taken for the next command's, so a cancelled
    /// command makes the connection useless.
    ///
    /// # Errors
    /// [`QmpError::Refused`] when QEMU says no (the connection stays good), all else is final.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let closed = || QmpError::Closed { doing: command.to_owned() };
        if self.broken {
            return Err(closed());
        }
        self.broken = true;
        let request = match arguments {
            Value::Null => json!({ "execute": command }),
            arguments => json!({ "execute": command, "arguments": arguments }),
        };
        self.stream
            .write_all(format!("{request}\n").as_bytes())
            .await
            .map_err(|source| QmpError::Io { doing: command.to_owned(), source })?;
        loop {
            match self.next(command).await? {
                Incoming::Return(value) => {
                    self.broken = false;
                    return Ok(value);
                }
                Incoming::Refused { class, description } => {
                    self.broken = false;
                    return Err(QmpError::Refused {
                        command: command.to_owned(),
                        class,
                        description,
                    });
                }
                Incoming::Event(event) => self.keep(event),
                Incoming::Greeting => {
                    return Err(QmpError::Protocol("greeted in mid-conversation".into()));
                }
            }
        }
    }

    /// Gives QEMU a descriptor, under a name for later commands. As little safe to cancel as
    /// [`Qmp::execute`].
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub async fn pass_descriptor(
        &mut self,
        name: &str,
        descriptor: BorrowedFd<'_>,
    ) -> Result<(), QmpError> {
        // The descriptor travels with a blank before the command, which JSON does not mind.
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptors = [descriptor];
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            let blank = [IoSlice::new(b" ")];
            let flags = SendFlags::NOSIGNAL;
            rustix::net::sendmsg(&self.stream, &blank, &mut ancillary, flags)?;
            Ok(())
        };
        if !self.broken {
            let sent = self.stream.async_io(Interest::WRITABLE, send).await;
            sent.map_err(|source| QmpError::Io { doing: "pass a descriptor".into(), source })?;
        }
        self.execute("getfd", json!({ "fdname": name })).await.map(|_| ())
    }

    /// Waits for the next event for which `wanted` says true. Events that came earlier and were
    /// not taken yet count; all others are dropped on the way. Safe to cancel.
    ///
    /// # Errors
    /// When QEMU hangs up first.
    pub async fn wait_event(
        &mut self,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Event, QmpError> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if wanted(&event) {
                    return Ok(event);
                }
            }
            if self.broken {
                return Err(QmpError::Closed { doing: "wait for an event".into() });
            }
            match self.next("wait for an event").await? {
                Incoming::Event(event) => self.keep(event),
                other => {
                    self.broken = true;
                    return Err(QmpError::Protocol(format!("an answer to nothing: {other:?}")));
                }
            }
        }
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    async fn next(&mut self, doing: &str) -> Result<Incoming, QmpError> {
        // How far the buffer was searched, so that a long line is not searched again and again.
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=searched + at).collect();
                return Incoming::parse(&line).inspect_err(|_| self.broken = true);
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                self.broken = true;
                return Err(QmpError::Protocol(format!("a line is longer than {MAX_LINE} bytes")));
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            let read = read.map_err(|source| QmpError::Io { doing: doing.to_owned(), source })?;
            if read == 0 {
                self.broken = true;
                return Err(QmpError::Closed { doing: doing.to_owned() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays QEMU: sends `script` entries one after the other, reading one line before each but
    /// the first. Returns the lines that it read.
    async fn qemu(mut stream: UnixStream, script: &'static [&'static str]) -> Vec<Value> {
        let mut heard = Vec::new();
        let mut bytes = Vec::new();
        for (index, say) in script.iter().enumerate() {
            if index > 0 {
                while !bytes.ends_with(b"\n") {
                    assert_ne!(stream.read_buf(&mut bytes).await.expect("read"), 0, "client left");
                }
                heard.push(serde_json::from_slice(&bytes).expect("one command, as json"));
                bytes.clear();
            }
            stream.write_all(say.as_bytes()).await.expect("write");
        }
        heard
    }

    const HELLO: &str = "{\"QMP\": {\"version\": {}}}\r\n";
    const OK: &str = "{\"return\": {}}\r\n";

    #[tokio::test]
    async fn commands_are_answered_and_events_in_between_are_kept() {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let server = tokio::spawn(qemu(
            theirs,
            &[
                HELLO,
                OK,
                "{\"event\": \"STOP\", \"timestamp\": {}}\r\n{\"event\": \"RESUME\"}\r\n{\"return\": {\"status\": \"running\"}}\r\n",
            ],
        ));
        let mut qmp = Qmp::open(ours).await.expect("negotiated");
        let answer = qmp.execute("query-status", Value::Null).await.expect("answered");
        assert_eq!(answer, json!({ "status": "running" }));
        let event = qmp.wait_event(|event| event.name == "RESUME").await.expect("kept");
        assert_eq!(event.name, "RESUME");
        let heard = server.await.expect("server");
        assert_eq!(heard[0], json!({ "execute": "qmp_capabilities" }));
        assert_eq!(heard[1], json!({ "execute": "query-status" }));
    }

    #[tokio::test]
    async fn a_refusal_leaves_the_connection_usable() {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let server = tokio::spawn(qemu(
            theirs,
            &[HELLO, OK, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such\"}}\n", OK],
        ));
        let mut qmp = Qmp::open(ours).await.expect("negotiated");
        let refused = qmp.execute("fly", json!({ "high": true })).await.expect_err("refused");
        assert!(
            matches!(&refused, QmpError::Refused { command, description, .. }
                if command == "fly" && description == "no such"),
            "{refused}"
        );
        qmp.execute("cont", Value::Null).await.expect("still usable");
        let heard = server.await.expect("server");
        assert_eq!(heard[1], json!({ "execute": "fly", "arguments": { "high": true } }));
    }

    #[tokio::test]
    async fn hanging_up_and_rubbish_are_errors_and_final() {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        drop(theirs);
        assert!(matches!(
            Qmp::open(ours).await,
            Err(QmpError::Closed { .. } | QmpError::Io { .. })
        ));

        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let server = tokio::spawn(qemu(theirs, &[HELLO, OK, "\u{1}\u{2} rubbish\n"]));
        let mut qmp = Qmp::open(ours).await.expect("negotiated");
        let error = qmp.execute("stop", Value::Null).await.expect_err("rubbish");
        assert!(matches!(error, QmpError::Protocol(_)), "{error}");
        server.await.expect("server");
        let error = qmp.execute("stop", Value::Null).await.expect_err("final");
        assert!(matches!(error, QmpError::Closed { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused() {
        let (ours, mut theirs) = UnixStream::pair().expect("socketpair");
        let flood = tokio::spawn(async move {
            let block = vec![b'x'; 64 << 10];
            while theirs.write_all(&block).await.is_ok() {}
        });
        let error = Qmp::open(ours).await.err().expect("refused");
        assert!(matches!(error, QmpError::Protocol(_)), "{error}");
        flood.await.expect("the flood ends when the client leaves");
    }
}
