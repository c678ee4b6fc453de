//! MicroVMs on this host: images, templates, clones. Knows nothing of sessions.
//!
//! ```text
//!             Image ─┐
//!  kernel, agent ────┼─► cold start ── prepare ── wake ─────────────────────────► Started
//!  shape, Prepare ───┘        │                                                      ▲
//!                             └─ bake: prepare, freeze, save ─► Template ─ clone ─ wake
//!                                                                            │      │ claim, wake
//!                                                                            └─ park ─► Parked
//! ```
//!
//! [`Host`] is the door: it is opened once per data directory and process. A machine is a QEMU
//! process and a directory under `run/`; both outlive the dispatcher ([`Host::connect`] finds
//! them again), and [`Host::destroy`] removes both.
//!
//! Read in this order: `config.rs`, `run/` (the life of a machine on the host), `boot.rs`,
//! `start.rs`, `template.rs`; [`image`] and [`net`] stand for themselves.

mod boot;
mod cage;
pub mod config;
pub mod doctor;
mod error;
mod guest;
mod host;
pub mod image;
mod layout;
pub mod leftovers;
mod lock;
pub mod net;
mod probe;
mod qemu;
mod qmp;
mod reserve;
mod run;
mod start;
pub mod template;
mod usage;

pub use config::{
    Accelerator, AcceleratorChoice, CageChoice, HostConfig, MachineShape, Network, Progress,
};
pub use error::{Error, chain};
pub use host::{Host, Running};
pub use layout::check_name;
pub use net::NetError;
pub use reserve::Parked;
pub use run::{pidfd::Alive, process::Identity, vm::OWN_MEMORY_MIB};
pub use start::{From, Start, Started};
pub use template::Template;
pub use usage::Usage;
