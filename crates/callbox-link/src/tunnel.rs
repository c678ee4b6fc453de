use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::calls::accepted;
use crate::link::broken;
use crate::{Link, LinkError};

/// Bytes to and from a port inside the machine. Dropping it closes it.
pub struct Tunnel {
    io: TokioIo<Upgraded>,
    /// Keeps the connection alive as long as the tunnel is.
    _link: Link,
}

pub(crate) async fn open(link: &Link, authority: String) -> Result<Tunnel, LinkError> {
    const CALL: &str = "tunnel";
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(authority)
        .body(Full::new(Bytes::new()))
        .map_err(|error| LinkError::Protocol { call: CALL, what: error.to_string() })?;
    let response = accepted(CALL, link.send(CALL, request).await?).await?;
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| broken(CALL, &error))?;
    Ok(Tunnel { io: TokioIo::new(upgraded), _link: link.clone() })
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
