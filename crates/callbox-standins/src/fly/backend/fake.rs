//! The backend that runs nothing: it takes its time, and a future stands for the program.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use callbox_fly::wire::ImageRef;
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::{Backend, Boot, Exit, Launched, Program, Spec, Spread, Word};

/// How long things take. The default is what fly.md section 6 has of published and measured
/// times, for an image that Fly's cache knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Times {
    /// Within the create call: a host is found, the manifest is fetched. Not measured by
    /// anybody; a guess.
    pub find: Spread,
    /// In `created`: the image is pulled, the root file system is built.
    pub build: Spread,
    /// The first boot.
    pub boot: Spread,
    /// From `stopped`.
    pub start: Spread,
    /// From `suspended`.
    pub resume: Spread,
    /// Into `suspended`.
    pub suspend: Spread,
    /// Taking it away.
    pub destroy: Spread,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            find: Spread::of(400, 1_500),
            build: Spread::of(2_000, 12_000),
            boot: Spread::of(300, 1_000),
            start: Spread::of(600, 2_000),
            resume: Spread::of(300, 800),
            suspend: Spread::of(2_000, 15_000),
            destroy: Spread::of(200, 1_000),
        }
    }
}

impl Times {
    /// Nothing takes any time.
    pub const NONE: Times = Times {
        find: Spread::NONE,
        build: Spread::NONE,
        boot: Spread::NONE,
        start: Spread::NONE,
        resume: Spread::NONE,
        suspend: Spread::NONE,
        destroy: Spread::NONE,
    };
}

/// The backend that runs nothing.
#[derive(Debug)]
pub struct Fake {
    times: Times,
    program: Program,
    rng: Mutex<Rng>,
    missing: Mutex<HashSet<String>>,
    runs: Mutex<HashMap<String, Run>>,
}

#[derive(Debug)]
struct Run {
    frozen: watch::Sender<bool>,
    words: mpsc::UnboundedSender<Word>,
    ended: watch::Receiver<Option<Exit>>,
    end: Arc<watch::Sender<Option<Exit>>>,
    task: AbortHandle,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// One whose machines run `program`.
    pub fn new(times: Times, seed: u64, program: Program) -> Fake {
        Fake {
            times,
            program,
            rng: Mutex::new(Rng::with_seed(seed)),
            missing: Mutex::default(),
            runs: Mutex::default(),
        }
    }

    /// Whether there is an image of this name; there are all, until this says otherwise.
    pub fn set_image(&self, image: &str, there: bool) {
        let mut missing = self.missing.lock().expect("no panic while held");
        if there {
            missing.remove(image)
        } else {
            missing.insert(image.to_owned())
        };
    }

    async fn take(&self, spread: Spread) {
        let time = spread.draw(&mut self.rng.lock().expect("no panic while held"));
        if !time.is_zero() {
            sleep(time).await;
        }
    }

    fn with<T>(&self, id: &str, what: impl FnOnce(&Run) -> T) -> Option<T> {
        self.runs.lock().expect("no panic while held").get(id).map(what)
    }

    fn launch(&self, spec: &Spec, boot: Boot) {
        let (words, heard) = mpsc::unbounded_channel();
        let (frozen, thaws) = watch::channel(false);
        let (end, ended) = watch::channel(None);
        let end = Arc::new(end);
        let launched = Launched { spec: spec.clone(), env: spec.env(), boot, words: heard };
        let program = self.program.run(launched);
        let said = Arc::clone(&end);
        let task = tokio::spawn(async move {
            let exit = thawed(program, thaws).await;
            said.send_if_modified(|ended| {
                let first = ended.is_none();
                ended.get_or_insert(exit);
                first
            });
        });
        let run = Run { frozen, words, ended, end, task: task.abort_handle() };
        self.runs.lock().expect("no panic while held").insert(spec.id.clone(), run);
    }
}

/// Polls the program only while it is not frozen.
async fn thawed(
    mut program: futures::future::BoxFuture<'static, Exit>,
    mut frozen: watch::Receiver<bool>,
) -> Exit {
    loop {
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return program.await;
        }
        tokio::select! {
            biased;
            changed = frozen.changed() => if changed.is_err() { return program.await },
            exit = &mut program => return exit,
        }
    }
}

#[async_trait]
impl Backend for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn find_image(&self, image: &str) -> Option<ImageRef> {
        self.take(self.times.find).await;
        let missing = self.missing.lock().expect("no panic while held").contains(image);
        (!missing).then(|| image_ref(image))
    }

    async fn build(&self, _spec: &Spec) -> Result<(), String> {
        self.take(self.times.build).await;
        Ok(())
    }

    async fn start(&self, spec: &Spec, boot: Boot) -> Result<Boot, String> {
        let kept = self.with(&spec.id, |run| run.ended.borrow().is_none()) == Some(true);
        let boot = if boot == Boot::Resume && !kept { Boot::Cold } else { boot };
        self.take(match boot {
            Boot::First => self.times.boot,
            Boot::Cold => self.times.start,
            Boot::Resume => self.times.resume,
        })
        .await;
        match boot {
            Boot::Resume => {
                self.with(&spec.id, |run| {
                    if run.frozen.send_replace(false) {
                        // Whoever does not listen needs no word.
                        let _ = run.words.send(Word::Resumed);
                    }
                });
            }
            Boot::First | Boot::Cold => self.launch(spec, boot),
        }
        Ok(boot)
    }

    async fn ended(&self, id: &str) -> Exit {
        let Some(mut ended) = self.with(id, |run| run.ended.clone()) else {
            return Exit::killed();
        };
        match ended.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_default(),
            Err(_) => Exit::killed(),
        }
    }

    async fn signal(&self, id: &str, signal: &str) {
        // A program that has ended hears nothing.
        self.with(id, |run| run.words.send(Word::Signal(signal.to_owned())).is_ok());
    }

    async fn end(&self, id: &str, exit: Exit) -> bool {
        self.with(id, |run| {
            run.end.send_if_modified(|ended| {
                let first = ended.is_none();
                ended.get_or_insert(exit);
                first
            })
        })
        .unwrap_or_default()
    }

    async fn kill(&self, id: &str) {
        self.runs.lock().expect("no panic while held").remove(id);
    }

    fn can_suspend(&self, _spec: &Spec) -> Result<(), String> {
        Ok(())
    }

    async fn suspend(&self, spec: &Spec) -> Result<(), String> {
        self.take(self.times.suspend).await;
        self.with(&spec.id, |run| run.frozen.send_replace(true));
        Ok(())
    }

    async fn destroy(&self, id: &str) -> Result<(), String> {
        self.take(self.times.destroy).await;
        self.kill(id).await;
        Ok(())
    }
}

/// The parts of a reference, with a digest that is the same for the same text.
fn image_ref(image: &str) -> ImageRef {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, digest.to_owned()),
        None => (image, made_up_digest(image)),
    };
    let (registry, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
        _ => ("registry-1.docker.io", name),
    };
    let (repository, tag) = match path.rsplit_once(':') {
        Some((repository, tag)) => (repository, tag),
        None => (path, "latest"),
    };
    ImageRef {
        registry: Some(registry.to_owned()),
        repository: Some(repository.to_owned()),
        tag: Some(tag.to_owned()),
        digest: Some(digest),
        ..ImageRef::default()
    }
}

fn made_up_digest(text: &str) -> String {
    let seed = text
        .bytes()
        .fold(7_u64, |seed, byte| seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
    let mut rng = Rng::with_seed(seed);
    format!("sha256:{:032x}{:032x}", rng.u128(..), rng.u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        for (image, registry, repository, tag) in [
            ("parrot", "registry-1.docker.io", "parrot", "latest"),
            ("library/ubuntu:24.04", "registry-1.docker.io", "library/ubuntu", "24.04"),
            ("registry.fly.io/app:v1@sha256:ab", "registry.fly.io", "app", "v1"),
            ("localhost:5000/a/b", "localhost:5000", "a/b", "latest"),
        ] {
            let found = image_ref(image);
            assert_eq!(found.registry.as_deref(), Some(registry));
            assert_eq!(found.repository.as_deref(), Some(repository));
            assert_eq!(found.tag.as_deref(), Some(tag));
            assert!(found.digest.is_some_and(|digest| digest.starts_with("sha256:")));
        }
    }
}
