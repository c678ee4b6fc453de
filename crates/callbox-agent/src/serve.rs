//! One HTTP/2 connection after the other, on one carrier.
//!
//! There are two carriers. Only the dispatcher has the first: all calls, and the machine lives as
//! long as somebody is there. On the second is whoever carries the call's media while dispatchers
//! come and go: it leads to the bot and nowhere else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::api;
use crate::carrier::{Carrier, Shared};
use crate::hello;
use crate::machine::Machine;

/// Window of one stream, and of the connection: see the host's side in `callbox-link`.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// How much of one stream waits in memory for the carrier. What waits here is late audio.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a connection that was asked to end may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// What may be asked on a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything.
    Control,
    /// Tunnels to the bot's port.
    Media,
}

/// Serves `carrier` until it ends.
pub(crate) async fn serve<C: Carrier>(machine: Arc<Machine>, carrier: C, access: Access) {
    let mut carrier = Shared::new(carrier);
    loop {
        carrier.wait_for_host(true);
        let seen = carrier.take_history();
        match hello::answer(&mut carrier, &seen).await {
            Ok(Some(first)) => {
                carrier.wait_for_host(false);
                // Media alone keeps no machine: without a dispatcher nobody would ever end it.
                let _host = (access == Access::Control).then(|| machine.host_connected());
                connection(&machine, carrier.beginning_with(first), access).await;
            }
            Ok(None) => return,
            Err(error) => {
                machine.logs.say(&format!("the carrier to the host failed: {error}"));
                return;
            }
        }
    }
}

async fn connection<C: Carrier>(machine: &Arc<Machine>, carrier: Shared<C>, access: Access) {
    let (close, mut closing) = watch::channel(false);
    let close = Arc::new(close);
    let last_read = carrier.last_read();
    let service = service_fn(|request| {
        let (machine, close, came_at) = (Arc::clone(machine), Arc::clone(&close), last_read());
        let answering = api::answer(machine, request, access, close, came_at);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(carrier), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(CLOSE_PATIENCE, connection).await;
}
