//! Speaking the agent protocol over any byte stream: hello, HTTP/2, typed calls.
//!
//! The words are in [`callbox_protocol::agent`]; this crate is the host's mouth for them.
//!
//! ```text
//!   Carrier ──hello──▶ HTTP/2 ──▶ Link ─┬─ prepare, freeze, wake, session, stop   (one answer)
//!  (serial port,                        ├─ events, logs                           (lines)
//!   socket, duplex)                     └─ tunnel                                 (bytes)
//! ```
//!
//! Nothing the machine says is trusted: answers and lines are bounded ([`MAX_ANSWER_BYTES`],
//! [`MAX_LINE_BYTES`]), and what cannot be read is a [`LinkError`], never a panic.
//!
//! Nothing here has a deadline of its own, because only the caller knows how long a boot, a
//! preparation or a call may take: wrap calls in [`tokio::time::timeout`]. There are no
//! keep-alive pings either: a machine that is paused must not lose its connection.
//!
//! Everything above this crate can be tested without a machine: see [`fake`].

mod calls;
mod error;
pub mod fake;
mod hello;
mod lines;
mod link;
mod rewind;
mod tunnel;
mod websocket;

use tokio::io::{AsyncRead, AsyncWrite};

pub use calls::{MAX_ANSWER_BYTES, fresh_wake};
pub use error::LinkError;
pub use lines::MAX_LINE_BYTES;
pub use link::Link;
pub use tunnel::Tunnel;
pub use websocket::over_websocket;

/// Any ordered byte stream to an agent.
pub trait CarrierIo: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> CarrierIo for T {}

/// The byte stream that a [`Link`] runs over.
pub type Carrier = Box<dyn CarrierIo>;
