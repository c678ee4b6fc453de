//! Places: threads that live in network namespaces of their own, and guests without a machine.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use callbox_microvm::net::{Plug, inner, tap};
use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, poll};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, and a thread in it that does what it is told.
pub struct Place {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// For `ip … netns <id>`.
    pub id: u32,
}

impl Place {
    pub fn new() -> Place {
        let (jobs, todo) = channel::<Job>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may");
            ip("link set lo up");
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("waited for");
            while let Ok(job) = todo.recv() {
                job();
            }
        });
        let id = u32::try_from(told.recv().expect("it starts")).expect("positive");
        Place { jobs: Some(jobs), thread: Some(thread), id }
    }

    /// Does `job` in this place, and waits for its result.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, result) = channel();
        let job = Box::new(move || drop(answer.send(job())));
        self.jobs.as_ref().expect("open").send(job).expect("the place is there");
        result.recv().expect("a job in a place failed; its thread says why")
    }

    pub fn ip(&self, arguments: &str) {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `ip` in the namespace of the calling thread.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status();
    assert!(status.expect("there is ip").success(), "ip {arguments}");
}

/// What a machine would be: a kernel's network stack behind a card that is plugged in.
pub struct Guest {
    pub place: Place,
    /// Closed to stop the pump.
    stop: Option<UnixStream>,
    pump: Option<JoinHandle<()>>,
    card: File,
}

impl Guest {
    /// A guest that is set up as the agent sets one up.
    pub fn behind(plug: Plug) -> Guest {
        let place = Place::new();
        let theirs = File::from(place.run(|| tap::open("eth0")).expect("root may"));
        let guest = inner::GUEST;
        for arguments in [
            format!("link set eth0 address {}", inner::written(&inner::GUEST_MAC)),
            format!("addr add {guest}/{} dev eth0", inner::PREFIX),
            "link set eth0 up".to_owned(),
            format!("route add default via {} dev eth0", inner::GATEWAY),
        ] {
            place.ip(&arguments);
        }
        let card = File::from(plug.card);
        let (stop, stopped) = UnixStream::pair().expect("sockets");
        let ours = card.try_clone().expect("a descriptor");
        let pump = std::thread::spawn(move || carry(ours, theirs, &stopped));
        Guest { place, stop: Some(stop), pump: Some(pump), card }
    }

    /// Sends a frame as no kernel would.
    pub fn inject(&mut self, frame: &[u8]) {
        self.card.write_all(frame).expect("the card takes it");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}

fn carry(mut one: File, mut other: File, stopped: &UnixStream) {
    let mut frame = [0; 65_536];
    loop {
        let (a, b) = {
            let mut fds = [
                PollFd::new(stopped, PollFlags::IN),
                PollFd::from_borrowed_fd(one.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(other.as_fd(), PollFlags::IN),
            ];
            poll(&mut fds, None).expect("descriptors");
            if !fds[0].revents().is_empty() {
                return;
            }
            (fds[1].revents().contains(PollFlags::IN), fds[2].revents().contains(PollFlags::IN))
        };
        // An end that is down refuses frames, as a cable that is not plugged in.
        if a && let Ok(length) = one.read(&mut frame) {
            let _ = other.write(&frame[..length]);
        }
        if b && let Ok(length) = other.read(&mut frame) {
            let _ = one.write(&frame[..length]);
        }
    }
}
