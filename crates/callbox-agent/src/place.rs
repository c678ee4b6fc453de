use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use callbox_protocol::agent::Prepare;
use rustix::process::{getgid, getuid};

/// Where the agent runs, and so what it may do.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// What the agent is there.
    pub kind: Kind,
    /// Where the files for the bot go.
    pub run_dir: PathBuf,
    /// How long an awake machine lives without a host.
    pub orphan_after: Duration,
}

/// What the agent is in its machine.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// PID 1 of a machine of ours, which it boots, names, and may be a clone.
    Init,
    /// A program of the image, in a machine that somebody else boots and gives its names: it is
    /// one session's alone, like ours, and no clone. Holds what the image says of the bot.
    #[cfg_attr(not(feature = "join"), expect(dead_code, reason = "only then made"))]
    Joined(Image),
    /// An ordinary process of a developer or a test, which changes nothing but itself.
    Process,
}

/// What an image says about running its bot, as the agent found it at its own start.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: String,
}

impl Place {
    /// Whether nobody but the session's bot is in the machine beside the agent.
    pub(crate) fn is_machine(&self) -> bool {
        !matches!(self.kind, Kind::Process)
    }

    /// Whether the machine is ours to boot, name and end.
    pub(crate) fn is_init(&self) -> bool {
        matches!(self.kind, Kind::Init)
    }

    /// The host's words about the bot, with what the image says where they are silent.
    pub(crate) fn complete(&self, asked: Prepare) -> Prepare {
        let Kind::Joined(image) = &self.kind else { return asked };
        let or_own =
            |asked: String, own: &String| if asked.is_empty() { own.clone() } else { asked };
        let mut env = image.env.clone();
        env.extend(asked.env);
        Prepare {
            argv: if asked.argv.is_empty() { image.argv.clone() } else { asked.argv },
            env,
            cwd: or_own(asked.cwd, &image.cwd),
            // The image chose whom it runs as.
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
            ..asked
        }
    }
}
