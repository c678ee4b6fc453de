//! A way to the database that can be cut.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the way is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Everything passes.
    Open,
    /// Connections break, and new ones too.
    Broken,
    /// Nothing passes and nothing breaks; what was sent arrives when the way is open again.
    Silent,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(target: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, ways) = watch::channel(Way::Open);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, ways) = (target.clone(), ways.clone());
                tokio::spawn(carry(client, target, ways));
            }
        });
        Proxy { address, way, task }
    }

    pub(crate) fn is(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.way.send_replace(Way::Broken);
    }
}

async fn carry(client: TcpStream, target: String, ways: watch::Receiver<Way>) {
    let mut broken = ways.clone();
    let both = async {
        let server = TcpStream::connect(&target).await?;
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client, server) = (client.into_split(), server.into_split());
        tokio::try_join!(
            pump(client.0, server.1, ways.clone()),
            pump(server.0, client.1, ways.clone())
        )
    };
    tokio::select! {
        _ = both => {}
        _ = broken.wait_for(|way| *way == Way::Broken) => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut ways: watch::Receiver<Way>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = from.read(&mut buffer).await?;
        let _ = ways.wait_for(|way| *way == Way::Open).await;
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
    }
}
