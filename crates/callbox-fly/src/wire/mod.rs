//! The words on the wire (fly.md sections 2, 3).
//!
//! The same types are written by the client and read by whoever serves this API, so requests
//! are read strictly, as Fly does: a wrong type is an error, an unknown field is not.
//! Unknown fields of a [`MachineConfig`] are *kept*, because an update sends the whole of it;
//! everywhere else they are ignored.
//! Answers are read leniently ([`Machine`]): what makes no sense is absent.

mod apps;
mod config;
mod duration;
mod event;
mod fault;
mod lease;
mod lenient;
mod machine;
mod platform;
mod requests;
mod word;

pub use apps::{App, AppCreated, AppList, CreateApp, Organization};
pub use config::{
    CpuKind, File, Guest, Init, MachineConfig, PersistRootfs, Restart, RestartPolicy, Rootfs,
    StopConfig,
};
pub use duration::GoDuration;
pub use event::{Event, ExitEvent};
pub use fault::ErrorBody;
pub use lease::{Lease, LeaseAnswer, LeaseRequest};
pub use machine::{HostStatus, ImageRef, Machine, State};
pub use platform::{
    OrgMachine, OrgMachines, Placement, Placements, PlacementsRequest, Region, Regions,
};
pub use requests::{
    CreateMachine, MetadataUpdate, MetadataValue, Ok, SignalRequest, Started, StopRequest,
    UpdateMachine, WaitAnswer,
};
