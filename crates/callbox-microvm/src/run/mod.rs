//! Machines that run: their directories, their processes, what they say.
//!
//! ```text
//! <data_dir>/run/<name>/        lives exactly as long as the machine is somebody's business
//!     machine.json              what it is, and its process once there is one
//!     qmp.sock                  QEMU's monitor
//!     agent.sock                the agent's serial port
//!     media.sock                its second one, for a call's media
//!     console.sock              what the guest prints
//! ```
//!
//! QEMU runs in a process group of its own and holds nothing of ours but the four listening
//! sockets, so it outlives the dispatcher; the next one finds it by its directory.
//!
//! ```text
//! (nothing) ─create─► directory ─spawn─► directory + process ─record─► pid is known
//!                         │                     │                          │
//!                         └─────────────────────┴──── destroy ─────────────┘
//!                                                       │ 1. rename to .gone-<name>
//!                                                       │ 2. kill what the record or the mark names
//!                                                       ▼ 3. remove the directory
//!                                                   (nothing)
//! ```
//!
//! The rename comes first so that a start that is still under way loses: recording its process
//! fails, and it kills the process itself. A destroy that is cut short is found again as
//! `.gone-<name>` and finished. A process whose pid was never recorded is found by the mark on
//! its command line.

pub mod directory;
pub mod pidfd;
pub mod process;
pub mod tail;
pub mod vm;

pub use directory::{Kind, Record, RunDir};
pub use tail::Tail;
pub use vm::Vm;
