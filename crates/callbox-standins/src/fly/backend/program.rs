//! What runs in a machine of the fake: a future, given by whoever embeds the stand-in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Boot, Exit, Spec};

/// Runs a machine's main process: called when the machine has booted, and ended by its result.
/// A machine that is killed drops the future; one that is suspended does not poll it.
///
/// Tasks that the future spawns live on by themselves: spawn into a `JoinSet` that the future
/// owns, then they end with it.
#[derive(Clone)]
pub struct Program(Arc<dyn Fn(Launched) -> BoxFuture<'static, Exit> + Send + Sync>);

/// A machine that has just booted. `Debug` shows no values of its environment.
pub struct Launched {
    /// The machine with its configuration: files, argv, metadata.
    pub spec: Spec,
    /// The environment of the program: the configuration's and Fly's.
    pub env: BTreeMap<String, String>,
    /// How it came up; never [`Boot::Resume`], which only goes on.
    pub boot: Boot,
    /// What happens to it while it runs. A program that ignores signals is killed after the
    /// grace.
    pub words: UnboundedReceiver<Word>,
}

impl fmt::Debug for Launched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.env.keys().collect();
        f.debug_struct("Launched")
            .field("spec", &self.spec)
            .field("env (names)", &names)
            .field("boot", &self.boot)
            .finish_non_exhaustive()
    }
}

/// What happens to a running program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A signal, such as `SIGTERM`.
    Signal(String),
    /// It stood still and goes on: the clock may have jumped.
    Resumed,
}

impl Program {
    /// Each machine runs what this makes.
    pub fn new<F, R>(make: F) -> Program
    where
        F: Fn(Launched) -> R + Send + Sync + 'static,
        R: Future<Output = Exit> + Send + 'static,
    {
        Program(Arc::new(move |launched| Box::pin(make(launched))))
    }

    /// Runs until a signal comes, and then ends well.
    pub fn until_signal() -> Program {
        Program::new(|mut launched| async move {
            loop {
                match launched.words.recv().await {
                    Some(Word::Signal(_)) => return Exit::code(0),
                    Some(Word::Resumed) => {}
                    None => std::future::pending().await,
                }
            }
        })
    }

    pub(super) fn run(&self, launched: Launched) -> BoxFuture<'static, Exit> {
        (self.0)(launched)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Program(…)")
    }
}
