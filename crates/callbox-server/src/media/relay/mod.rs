//! A small process for one call, `callbox relay`, so that the call outlives the dispatcher.
//!
//! ```text
//!                    ┌── relay, one per call ──┐
//!  client ══ws══════▶│ held ─▶ pump            │══▶ media.sock of the machine ══▶ bot
//!                    │            standing, end│
//!                    └──────────▲──────────────┘
//!              <data_dir>/relays/<session>.sock: lines of JSON, one way each
//!                    ┌──────────▼──────────────┐
//!                    │ dispatcher, or the next │
//!                    └─────────────────────────┘
//! ```
//!
//! *Hand-over* (`hand_over`): the dispatcher binds the socket, starts the relay, writes down its
//! process, and sends it the client's connection, the socket and its order in one message. Until
//! then the client's connection dies with the dispatcher, and the client can come again; from
//! then on it lives with the relay. There is nothing in between.
//!
//! *Following* (`follow`): the relay says how it stands ([`words::Standing`], the whole of it)
//! whenever that changes, and to every dispatcher that comes. Nothing is numbered and nothing
//! acknowledged: the driver takes a repeated event as no news. The dispatcher says where the bot
//! is once it is ready, and when and how to end.
//!
//! *Alone* (`process`): without a dispatcher the call goes on. What ended meanwhile is kept until
//! one comes. After as long as a machine waits (`limits.orphan_after_s`), the relay ends the call.

mod descriptors;
mod desk;
mod follow;
mod hand_over;
mod keep;
mod process;
#[cfg(test)]
mod tests;
mod words;

pub(super) use follow::follow;
pub use follow::take_up;
pub(super) use hand_over::{NotHandedOver, hand_over};
pub use keep::Relays;
pub use process::{NotARelay, run};
