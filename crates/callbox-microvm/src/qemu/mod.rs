//! QEMU itself: which one it is, and with which arguments a machine is started.

pub mod command;
pub mod version;

pub use command::{Invocation, Memory};
pub use version::Qemu;
