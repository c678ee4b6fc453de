//! What a session is and what may happen to it next. No I/O, no clock, no randomness.
//!
//! A [`Session`] is a row. [`apply`] says what an [`Event`] makes of it, [`owed`] says what the
//! world still owes it. Everything that is not in the row is not remembered anywhere, so a
//! dispatcher that starts again needs nothing but the row to go on.
//!
//! Read in this order: `session` (the row and its states), `event`, `apply`, `owed`.

mod apply;
mod deadline;
mod event;
mod fault;
mod limits;
mod owed;
mod reason;
mod restart;
mod session;
mod time;
mod usage;

pub use apply::{Applied, Denied, apply};
pub use event::{BotExit, Event, EventKind, MachineFacts, Price, StartStage};
pub use fault::{Fault, FaultKind};
pub use limits::{Limits, ReadyWhen, Restarts};
pub use owed::{Duty, owed};
pub use reason::{EndCode, EndReason, Outcome};
pub use session::{
    MachineState, Moments, RoomState, Session, SessionId, SessionSpec, State, StateKind, Warning,
    machine_name, of_machine_name, of_reserve_name, reserve_name,
};
pub use time::Time;
pub use usage::{Usage, UsageAt, UsageSeen};
