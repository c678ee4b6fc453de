//! What really runs when a machine of the stand-in runs.

mod argv;
mod fake;
mod program;
mod spread;
mod vm;
mod way;

use std::collections::BTreeMap;

use async_trait::async_trait;
use callbox_fly::wire::{ImageRef, MachineConfig};
use serde::{Deserialize, Serialize};

pub use fake::{Fake, Times};
pub use program::{Launched, Program, Word};
pub use spread::Spread;
pub use vm::{HostConfig, Network, Vm, VmConfig};
pub use way::Way;

/// One machine, as its backend must know it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its id, unique in the stand-in.
    pub id: String,
    /// Its app.
    pub app: String,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// The version of its configuration.
    pub version: String,
    /// Its address in the organisation's network, which nothing here routes.
    pub private_ip: String,
    /// What it is made of. Its guest is filled in.
    pub config: MachineConfig,
}

impl Spec {
    /// The program's environment: what Fly adds (fly.md section 7), and over it the machine's.
    pub fn env(&self) -> BTreeMap<String, String> {
        let memory = self.config.guest.as_ref().and_then(|guest| guest.memory_mb);
        let group = self.config.metadata.get("fly_process_group").cloned();
        let image = self.config.image.clone().unwrap_or_default();
        let ours = [
            ("FLY_APP_NAME", self.app.clone()),
            ("FLY_MACHINE_ID", self.id.clone()),
            ("FLY_ALLOC_ID", self.id.clone()),
            ("FLY_REGION", self.region.clone()),
            ("PRIMARY_REGION", self.region.clone()),
            ("FLY_IMAGE_REF", image),
            ("FLY_MACHINE_VERSION", self.version.clone()),
            ("FLY_PRIVATE_IP", self.private_ip.clone()),
            ("FLY_PROCESS_GROUP", group.unwrap_or_else(|| "app".into())),
            ("FLY_VM_MEMORY_MB", memory.unwrap_or(256).to_string()),
        ];
        let mut env: BTreeMap<String, String> =
            ours.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        env.extend(self.config.env.clone());
        env
    }
}

/// How a machine comes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boot {
    /// The first boot after it was built.
    #[default]
    First,
    /// From nothing, but built before.
    Cold,
    /// From its memory, where that was kept.
    Resume,
}

/// How a main process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Exit {
    /// 0 for success.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// It needed more memory than there was.
    pub oom_killed: bool,
}

impl Exit {
    /// Ended by itself.
    pub fn code(code: i32) -> Exit {
        Exit { code, ..Exit::default() }
    }

    /// Killed.
    pub fn killed() -> Exit {
        Exit { code: 137, signal: Some(9), oom_killed: false }
    }
}

/// Runs machines. Every call may be dropped in the middle; [`Backend::kill`] and
/// [`Backend::destroy`] then still leave nothing of it.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// A word for it: `fake`, `vm`.
    fn name(&self) -> &'static str;

    /// Looks the image up, within the create call.
    ///
    /// # Errors
    /// `None` if there is no such image: the create is refused as for an unknown manifest.
    async fn find_image(&self, image: &str) -> Option<ImageRef>;

    /// Gets everything ready for the first boot: image, root file system. The machine is
    /// `created` meanwhile.
    ///
    /// # Errors
    /// Why it cannot be: the machine fails to launch.
    async fn build(&self, spec: &Spec) -> Result<(), String>;

    /// Boots it, or goes on where its memory was kept. Gives how it came up in truth: memory
    /// may be lost.
    ///
    /// # Errors
    /// Why it does not come up: the machine fails.
    async fn start(&self, spec: &Spec, boot: Boot) -> Result<Boot, String>;

    /// Waits for the end of its main process. At once, if none runs.
    async fn ended(&self, id: &str) -> Exit;

    /// Sends a signal to its main process, as `SIGTERM` or the like.
    async fn signal(&self, id: &str, signal: &str);

    /// Ends its main process as if by itself; whether one ran. For tests.
    async fn end(&self, id: &str, exit: Exit) -> bool;

    /// Ends it at once. What was kept of its memory is gone, too.
    async fn kill(&self, id: &str);

    /// Whether it could be suspended.
    ///
    /// # Errors
    /// Why not: the call is refused with 412.
    fn can_suspend(&self, spec: &Spec) -> Result<(), String>;

    /// Keeps its memory and lets it stand still. When dropped, it goes on running.
    ///
    /// # Errors
    /// Why not: it goes on running.
    async fn suspend(&self, spec: &Spec) -> Result<(), String>;

    /// Leaves nothing of it. What is not there is fine.
    ///
    /// # Errors
    /// What is left: it is tried again.
    async fn destroy(&self, id: &str) -> Result<(), String>;
}
