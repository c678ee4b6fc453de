//! Byte tunnels from the host to a port inside the machine, and the other way round: from a port
//! inside to wherever the host leads it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use callbox_protocol::agent::Phase;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

use crate::machine::Machine;
use crate::refusal::Refusal;
use crate::serve::Access;

/// A tunnel carries frames of audio, each a few hundred bytes: nothing is gained by more.
const BUFFER: usize = 16 * 1024;

/// The far ends of tunnels that begin inside.
#[derive(Default)]
pub(crate) struct Inward(Mutex<HashMap<u16, Arc<TcpListener>>>);

impl Inward {
    /// Who listens on this port of the machine's, from now on until its end.
    fn listener(&self, port: u16) -> std::io::Result<Arc<TcpListener>> {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = listeners.get(&port) {
            return Ok(Arc::clone(listener));
        }
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let listener = Arc::new(TcpListener::from_std(listener)?);
        listeners.insert(port, Arc::clone(&listener));
        Ok(listener)
    }
}

/// Connects to the port that the request names, or waits until somebody connects to it, and
/// carries bytes once it is answered.
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
    let place = authority.and_then(|authority| Some((authority.host(), authority.port_u16()?)));
    let inside = match place {
        Some(("127.0.0.1", port)) => connect(machine, port, access).await?,
        Some(("inside", port)) if access == Access::Control => next_to(machine, port).await?,
        _ => {
            return Err(Refusal::bad_request(
                "tunnels lead to 127.0.0.1:PORT, or from inside:PORT",
            ));
        }
    };
    carry(request, inside);
    Ok(())
}

async fn connect(machine: &Machine, port: u16, access: Access) -> Result<TcpStream, Refusal> {
    let bots = machine.prepared().map(|prepare| prepare.port);
    if access == Access::Media && bots != Some(port) {
        let message = format!("the media port leads to the bot only, not to port {port}");
        return Err(Refusal::bad_request(message));
    }
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        Refusal::no_listener(format!("nothing in the machine accepts port {port}: {error}"))
    })
}

/// The next connection that is made to this port in the machine. A host that goes away while it
/// waits costs whoever connects next that connection.
async fn next_to(machine: &Machine, port: u16) -> Result<TcpStream, Refusal> {
    let taken = |error: std::io::Error| {
        Refusal::bad_request(format!("the machine does not listen on port {port}: {error}"))
    };
    let listener = machine.inward.listener(port).map_err(taken)?;
    listener.accept().await.map(|(stream, _)| stream).map_err(taken)
}

fn carry(request: Request<Incoming>, mut inside: TcpStream) {
    // Audio waits for nothing. It works without, only later.
    let _ = inside.set_nodelay(true);
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let mut outside = TokioIo::new(upgraded);
            // Either side may end it at any moment; there is nobody to tell.
            let _ = copy_bidirectional_with_sizes(&mut outside, &mut inside, BUFFER, BUFFER).await;
        }
    });
}
