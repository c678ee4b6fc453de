use callbox_protocol::agent::CommandReady;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::TcpListener;

use crate::bots::free_port;
use crate::house::{House, command, session, soon, until};

/// Echoes on a port of its own until its runtime ends.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                copy(&mut reader, &mut writer).await
            });
        }
    });
    port
}

#[tokio::test]
async fn a_tunnel_carries_megabytes_in_order_and_its_end() {
    let house = House::new();
    let link = house.awake(&command(&["true"], CommandReady::Started)).await;
    let tunnel = soon(link.tunnel(echo().await)).await.unwrap();
    let (mut reader, mut writer) = split(tunnel);
    let sent: Vec<u8> = (0..10_000_000u32).flat_map(|n| [n as u8 ^ (n >> 8) as u8]).collect();
    let sending = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut received = Vec::with_capacity(sent.len());
    let receiving = async { reader.read_to_end(&mut received).await.unwrap() };
    soon(async { tokio::join!(sending, receiving) }).await;
    assert!(received == sent);
}

#[tokio::test]
async fn tunnels_lead_to_open_ports_only() {
    let house = House::new();
    let link = house.awake(&command(&["true"], CommandReady::Started)).await;
    let error = soon(link.tunnel(free_port())).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("not-found"), "{error}");
}

#[tokio::test]
async fn what_connects_inside_is_led_out() {
    let house = House::new();
    let link = house.awake(&command(&["true"], CommandReady::Started)).await;
    let port = free_port();
    for word in [b"one", b"two"] {
        let (outside, inside) = tokio::join!(soon(link.inward(port)), somebody_inside(port));
        let (mut outside, mut inside) = (outside.unwrap(), inside);
        inside.write_all(word).await.unwrap();
        let mut heard = [0; 3];
        soon(outside.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, word);
        drop(outside);
        assert_eq!(soon(inside.read(&mut heard)).await.unwrap(), 0, "its end comes, too");
    }
    let taken = soon(link.inward(echo().await)).await.unwrap_err();
    assert_eq!(taken.agent_code(), Some("bad-request"), "{taken}");
    let media = soon(callbox_link::Link::open(Box::new(house.media().await))).await.unwrap();
    let refused = soon(media.inward(port)).await.unwrap_err();
    assert_eq!(refused.agent_code(), Some("bad-request"), "the media port leads to the bot only");
}

async fn somebody_inside(port: u16) -> tokio::net::TcpStream {
    until(async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()).await
}

#[tokio::test]
async fn the_media_port_leads_to_the_bot_and_nowhere_else() {
    let house = House::new();
    let mut asked = command(&["true"], CommandReady::Started);
    asked.port = echo().await;
    let other = echo().await;
    let media = soon(callbox_link::Link::open(Box::new(house.media().await))).await.unwrap();
    let refused = |error: callbox_link::LinkError| error.agent_code().map(str::to_owned);
    let early = soon(media.tunnel(asked.port)).await.unwrap_err();
    assert_eq!(refused(early).as_deref(), Some("wrong-phase"), "it sleeps");

    let control = house.awake(&asked).await;
    let mut tunnel = soon(media.tunnel(asked.port)).await.unwrap();
    tunnel.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    soon(tunnel.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello");
    let elsewhere = soon(media.tunnel(other)).await.unwrap_err();
    assert_eq!(refused(elsewhere).as_deref(), Some("bad-request"));
    for refusal in [
        soon(media.health()).await.map(|_| ()),
        soon(media.session(&session())).await.map(|_| ()),
        soon(media.stop(std::time::Duration::ZERO)).await,
    ] {
        assert_eq!(refused(refusal.unwrap_err()).as_deref(), Some("not-found"));
    }
    soon(control.tunnel(other)).await.unwrap();
}

#[tokio::test]
async fn a_host_that_vanished_in_the_middle_of_a_frame_is_forgotten() {
    let house = House::new();
    let link = house.awake(&command(&["true"], CommandReady::Started)).await;
    drop(link);
    // On one and the same carrier, as over a serial port: half a frame, then the next host.
    let mut carrier = house.socket().await;
    let hello = format!("CALLBOX/1 {}\n", "a".repeat(32));
    carrier.write_all(hello.as_bytes()).await.unwrap();
    let mut answer = vec![0; hello.len() + 3];
    soon(carrier.read_exact(&mut answer)).await.unwrap();
    carrier.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // A frame of 8000 bytes, of which ten come.
    carrier.write_all(b"\0\x1f\x40\x07\0\0\0\0\0 goodbye..").await.unwrap();
    let link = soon(callbox_link::Link::open(Box::new(carrier))).await.unwrap();
    soon(link.health()).await.unwrap();
}

#[tokio::test]
async fn the_next_host_needs_one_hello_only() {
    let house = House::new();
    let mut carrier = house.socket().await;
    for digit in ["a", "b", "c"] {
        // The preface after the answer; then, without any goodbye, the next hello.
        let hello = format!("CALLBOX/1 {}\n", digit.repeat(32));
        carrier.write_all(hello.as_bytes()).await.unwrap();
        let expected = format!("CALLBOX/1 OK {}\n", digit.repeat(32));
        let mut seen = Vec::new();
        while !seen.ends_with(expected.as_bytes()) {
            seen.push(soon(carrier.read_u8()).await.unwrap());
        }
        carrier.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    }
}
