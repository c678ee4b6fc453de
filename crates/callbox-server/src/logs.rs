//! What dispatcher, agent and bot wrote about one session: one file a session, one JSON object a
//! line, bounded. Readers follow the file; a watch wakes them.
//!
//! A file is opened when something is written to it, and only so many stay open: most sessions are
//! silent most of the time, and a process may have only so many files open.

use std::{
    collections::{HashMap, VecDeque},
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use callbox_core::SessionId;
use callbox_protocol::api::{LogEntry, LogSource};
use tokio::sync::watch;

use crate::clock::Clock;

/// So many files stay open; the one that was opened first is closed for the next.
const STAY_OPEN: usize = 128;

/// The logs of all sessions.
#[derive(Debug)]
pub struct Logs {
    place: Arc<Place>,
    open: Mutex<HashMap<SessionId, Arc<Log>>>,
}

/// What all logs share.
#[derive(Debug)]
struct Place {
    /// None: nothing is kept.
    dir: Option<PathBuf>,
    max_bytes: u64,
    clock: Clock,
    /// Those whose files are open, in the order in which they were opened.
    files: Mutex<VecDeque<Weak<Log>>>,
}

/// The log of one session that has not ended.
#[derive(Debug)]
pub struct Log {
    session: SessionId,
    place: Arc<Place>,
    writer: Mutex<Writer>,
    length: watch::Sender<u64>,
    this: Weak<Log>,
}

#[derive(Debug, Default)]
struct Writer {
    file: Option<File>,
    /// Whether `seq` and `bytes` are known: an earlier dispatcher may have written.
    looked: bool,
    /// It could not be written; it is not tried again.
    broken: bool,
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
        Ok(Logs::new(Some(dir), max_bytes, Clock::system()))
    }

    /// Nothing is kept; what is written can be seen in the dispatcher's own log only.
    pub fn nowhere(clock: Clock) -> Logs {
        Logs::new(None, u64::MAX, clock)
    }

    fn new(dir: Option<PathBuf>, max_bytes: u64, clock: Clock) -> Logs {
        let place = Place { dir, max_bytes, clock, files: Mutex::default() };
        Logs { place: Arc::new(place), open: Mutex::default() }
    }

    /// What the time of the dispatcher's own lines comes from.
    pub fn clock(&self) -> &Clock {
        &self.place.clock
    }

    /// The log of `session`, for writing. A log that cannot be kept must not end a call: the
    /// lines then go to the dispatcher's own log only.
    pub fn writer(&self, session: SessionId) -> Arc<Log> {
        let mut open = self.open.lock().expect("no panic while held");
        let log = open.entry(session).or_insert_with(|| {
            Arc::new_cyclic(|this| Log {
                session,
                place: Arc::clone(&self.place),
                writer: Mutex::default(),
                length: watch::Sender::default(),
                this: this.clone(),
            })
        });
        Arc::clone(log)
    }

    /// No more will be written about `session`; followers come to their end.
    pub fn close(&self, session: SessionId) {
        self.open.lock().expect("no panic while held").remove(&session);
    }

    /// Whether something was written about `session` here.
    pub fn has(&self, session: SessionId) -> bool {
        self.place.path(session).is_some_and(|path| path.exists())
    }

    /// Removes what was written about `session`, which has ended long ago.
    pub fn remove(&self, session: SessionId) {
        let Some(path) = self.place.path(session) else { return };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(session.id = %session, %error, "an old log is left");
            }
            _ => {}
        }
    }

    /// The sessions about which something is kept, and nothing was written for `span`.
    pub fn older_than(&self, span: Duration) -> Vec<SessionId> {
        let Some(dir) = &self.place.dir else { return Vec::new() };
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let old = entries.filter_map(|entry| {
            let session = SessionId::parse(entry.path().file_stem()?.to_str()?)?;
            // Of a file, so by the host's clock; one from the future is new.
            let written = entry.metadata().ok()?.modified().ok()?;
            (written.elapsed().is_ok_and(|ago| ago > span)).then_some(session)
        });
        old.collect()
    }

    /// The entries from byte `offset` on, and the offset after them.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read(&self, session: SessionId, offset: u64) -> io::Result<(Vec<LogEntry>, u64)> {
        self.place.read(session, offset)
    }

    /// Changes whenever something is written about `session`; none when nothing will be.
    pub fn follow(&self, session: SessionId) -> Option<watch::Receiver<u64>> {
        let open = self.open.lock().expect("no panic while held");
        open.get(&session).map(|log| log.length.subscribe())
    }
}

impl Place {
    fn path(&self, session: SessionId) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(format!("{session}.ndjson")))
    }

    fn read(&self, session: SessionId, offset: u64) -> io::Result<(Vec<LogEntry>, u64)> {
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

    /// Another file is open; the one that has been for longest is closed, unless it is just being
    /// written.
    fn opened(&self, log: &Weak<Log>) {
        let mut files = self.files.lock().expect("no panic while held");
        files.push_back(Weak::clone(log));
        if files.len() <= STAY_OPEN {
            return;
        }
        if let Some(first) = files.pop_front().and_then(|first| first.upgrade()) {
            match first.writer.try_lock() {
                Ok(mut writer) => writer.file = None,
                Err(_) => files.push_back(Arc::downgrade(&first)),
            }
        }
    }
}

impl Log {
    /// Writes a line of the dispatcher.
    pub fn say(&self, text: &str) {
        let at_ms = self.place.clock.now().as_micros() / 1000;
        self.write(u64::try_from(at_ms).unwrap_or(0), LogSource::Dispatcher, text);
    }

    /// Writes a line.
    pub fn write(&self, at_ms: u64, source: LogSource, text: &str) {
        let id = self.session;
        let mut writer = self.writer.lock().expect("no panic while held");
        self.look(&mut writer);
        let max_bytes = self.place.max_bytes;
        let full = writer.bytes >= max_bytes;
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
        let text = if writer.bytes + text.len() as u64 >= max_bytes {
            writer.bytes = max_bytes;
            "(this log is full; what bot and agent write from here on is not kept)"
        } else {
            text
        };
        let entry = LogEntry { seq: writer.seq, at_ms, source, text: text.to_owned() };
        let mut line = serde_json::to_vec(&entry).expect("strings and numbers serialize");
        line.push(b'\n');
        writer.bytes += line.len() as u64;
        self.append(&mut writer, &line);
        self.length.send_replace(writer.bytes);
    }

    /// An earlier dispatcher may have written to it: what is there, before the first line of ours.
    fn look(&self, writer: &mut Writer) {
        if std::mem::replace(&mut writer.looked, true) {
            return;
        }
        let path = self.place.path(self.session);
        writer.bytes = path.and_then(|path| path.metadata().ok()).map_or(0, |file| file.len());
        if writer.bytes > 0 {
            let written = self.place.read(self.session, 0);
            writer.seq = written.map_or(0, |(entries, _)| entries.len() as u64);
        }
    }

    /// One write a line, so that a reader sees whole lines or a missing tail.
    fn append(&self, writer: &mut Writer, line: &[u8]) {
        let Some(path) = self.place.path(self.session).filter(|_| !writer.broken) else { return };
        let open = || OpenOptions::new().create(true).append(true).open(path);
        let file = match writer.file.take() {
            Some(file) => Ok(file),
            None => open().inspect(|_| self.place.opened(&self.this)),
        };
        match file.and_then(|mut file| file.write_all(line).map(|()| file)) {
            Ok(file) => writer.file = Some(file),
            Err(error) => {
                tracing::warn!(session.id = %self.session, %error, "cannot keep this session's log");
                writer.broken = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn more_logs_than_files_may_stay_open_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(dir.path().to_owned(), 1 << 20).unwrap();
        let ids: Vec<SessionId> = (0..3 * STAY_OPEN as u128)
            .map(|n| SessionId::parse(&format!("{n:032x}")).unwrap())
            .collect();
        for round in 0..3 {
            ids.iter().for_each(|id| logs.writer(*id).say(&format!("round {round}")));
        }
        let is_open = |id: &&SessionId| logs.writer(**id).writer.lock().unwrap().file.is_some();
        assert_eq!(ids.iter().filter(is_open).count(), STAY_OPEN);
        let expected: Vec<(u64, String)> =
            (0..3).map(|round| (round + 1, format!("round {round}"))).collect();
        for id in &ids {
            let (entries, _) = logs.read(*id, 0).unwrap();
            let found: Vec<(u64, String)> =
                entries.into_iter().map(|entry| (entry.seq, entry.text)).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_an_earlier_dispatcher_wrote_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let id = SessionId::parse(&format!("{:032x}", 7)).unwrap();
        for seq in 1..=2 {
            let logs = Logs::open(dir.path().to_owned(), 1 << 20).unwrap();
            logs.writer(id).say("a line");
            let (entries, _) = logs.read(id, 0).unwrap();
            assert_eq!(entries.last().unwrap().seq, seq);
        }
    }
}
