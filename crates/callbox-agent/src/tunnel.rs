//! Byte tunnels from the host to a port inside the machine.

use std::net::Ipv4Addr;
use std::sync::Arc;

use callbox_protocol::agent::Phase;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;

use crate::machine::Machine;
use crate::refusal::Refusal;
use crate::serve::Access;

/// A tunnel carries frames of audio, each a few hundred bytes: nothing is gained by more.
const BUFFER: usize = 16 * 1024;

/// Connects to the port that the request names, and carries bytes once it is answered.
pub(crate) async fn open(
    machine: &Arc<Machine>,
    request: Request<Incoming>,
    access: Access,
) -> Result<(), Refusal> {
    let phase = machine.phase();
    if !matches!(phase, Phase::Awake | Phase::InSession | Phase::Over) {
        return Err(Refusal::wrong_phase("a tunnel", phase));
    }
    let authority = request.uri().authority();
    let port = authority
        .filter(|authority| authority.host() == "127.0.0.1")
        .and_then(|authority| authority.port_u16())
        .ok_or_else(|| Refusal::bad_request("tunnels lead to 127.0.0.1:PORT only"))?;
    let bots = machine.prepared().map(|prepare| prepare.port);
    if access == Access::Media && bots != Some(port) {
        let message = format!("the media port leads to the bot only, not to port {port}");
        return Err(Refusal::bad_request(message));
    }
    let mut inside = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        Refusal::no_listener(format!("nothing in the machine accepts port {port}: {error}"))
    })?;
    // Audio waits for nothing. It works without, only later.
    let _ = inside.set_nodelay(true);
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let mut outside = TokioIo::new(upgraded);
            // Either side may end it at any moment; there is nobody to tell.
            let _ = copy_bidirectional_with_sizes(&mut outside, &mut inside, BUFFER, BUFFER).await;
        }
    });
    Ok(())
}
