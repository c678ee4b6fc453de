//! What dispatcher, agent and bot wrote about one session: one file a session, one JSON object a
//! line, bounded. Readers follow the file; a watch wakes them.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use callbox_core::SessionId;
use callbox_protocol::api::{LogEntry, LogSource};
use tokio::sync::watch;

use crate::clock::Clock;

/// The logs of all sessions.
#[derive(Debug)]
pub struct Logs {
    /// None: nothing is kept.
    dir: Option<PathBuf>,
    max_bytes: u64,
    clock: Clock,
    open: Mutex<HashMap<SessionId, Arc<Log>>>,
}

/// The log of one session that has not ended.
#[derive(Debug)]
pub struct Log {
    session: SessionId,
    max_bytes: u64,
    clock: Clock,
    file: Mutex<Writer>,
    length: watch::Sender<u64>,
}

#[derive(Debug)]
struct Writer {
    file: Option<File>,
    seq: u64,
    bytes: u64,
}

impl Logs {
    /// In this directory, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: PathBuf, max_bytes: u64) -> io::Result<Logs> {
        std::fs::create_dir_all(&dir)?;
        let clock = Clock::system();
        Ok(Logs { dir: Some(dir), max_bytes, clock, open: Mutex::default() })
    }

    /// Nothing is kept; what is written can be seen in the dispatcher's own log only.
    pub fn nowhere(clock: Clock) -> Logs {
        Logs { dir: None, max_bytes: u64::MAX, clock, open: Mutex::default() }
    }

    /// What the time of the dispatcher's own lines comes from.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    fn path(&self, session: SessionId) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(format!("{session}.ndjson")))
    }

    /// The log of `session`, for writing. A log that cannot be kept must not end a call: the
    /// lines then go to the dispatcher's own log only.
    pub fn writer(&self, session: SessionId) -> Arc<Log> {
        let mut open = self.open.lock().expect("no panic while held");
        let log = open.entry(session).or_insert_with(|| {
            let open = |path| OpenOptions::new().create(true).append(true).open(path);
            let file = self.path(session).and_then(|path| {
                open(path)
                    .inspect_err(|error| tracing::warn!(session.id = %session, %error, "cannot keep this session's log"))
                    .ok()
            });
            let bytes = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
            let seq = if bytes == 0 { 0 } else { self.read(session, 0).map_or(0, |(all, _)| all.len() as u64) };
            let writer = Writer { file, seq, bytes };
            let length = watch::Sender::new(bytes);
            let (max_bytes, clock) = (self.max_bytes, self.clock.clone());
            Arc::new(Log { session, max_bytes, clock, file: Mutex::new(writer), length })
        });
        Arc::clone(log)
    }

    /// No more will be written about `session`; followers come to their end.
    pub fn close(&self, session: SessionId) {
        self.open.lock().expect("no panic while held").remove(&session);
    }

    /// The entries from byte `offset` on, and the offset after them.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(&self, session: SessionId, offset: u64) -> io::Result<(Vec<LogEntry>, u64)> {
        let Some(path) = self.path(session) else { return Ok((Vec::new(), offset)) };
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Vec::new(), offset));
            }
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(self.max_bytes + 65_536).read_to_end(&mut bytes)?;
        // A line that is being written is left for the next look.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let entries = bytes[..whole].split(|byte| *byte == b'\n');
        let entries = entries.filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Ok((entries, offset + whole as u64))
    }

    /// Changes whenever something is written about `session`; none when nothing will be.
    pub fn follow(&self, session: SessionId) -> Option<watch::Receiver<u64>> {
        let open = self.open.lock().expect("no panic while held");
        open.get(&session).map(|log| log.length.subscribe())
    }
}

impl Log {
    /// Writes a line of the dispatcher.
    pub fn say(&self, text: &str) {
        let at_ms = self.clock.now().as_micros() / 1000;
        self.write(u64::try_from(at_ms).unwrap_or(0), LogSource::Dispatcher, text);
    }

    /// Writes a line.
    pub fn write(&self, at_ms: u64, source: LogSource, text: &str) {
        let id = self.session;
        let mut writer = self.file.lock().expect("no panic while held");
        let full = writer.bytes >= self.max_bytes;
        // The id is a field of its own, whatever span the writer is in. What has no room here has
        // none in the dispatcher's own log either: a bot must not fill the host's disk.
        match source {
            LogSource::Bot | LogSource::Agent if full => {}
            LogSource::Bot => tracing::info!(parent: None, session.id = %id, source = "bot", text),
            LogSource::Agent => {
                tracing::info!(parent: None, session.id = %id, source = "agent", text)
            }
            LogSource::Dispatcher => tracing::info!(parent: None, session.id = %id, text),
        }
        if full {
            return;
        }
        writer.seq += 1;
        let text = if writer.bytes + text.len() as u64 >= self.max_bytes {
            writer.bytes = self.max_bytes;
            "(this log is full; what bot and agent write from here on is not kept)"
        } else {
            text
        };
        let entry = LogEntry { seq: writer.seq, at_ms, source, text: text.to_owned() };
        let mut line = serde_json::to_vec(&entry).expect("strings and numbers serialize");
        line.push(b'\n');
        writer.bytes += line.len() as u64;
        if let Some(file) = &mut writer.file {
            // One write a line, so that a reader sees whole lines or a missing tail.
            if let Err(error) = file.write_all(&line) {
                tracing::warn!(session.id = %self.session, %error, "cannot keep this session's log");
                writer.file = None;
            }
        }
        self.length.send_replace(writer.bytes);
    }
}
