use callbox_link::fake::{FakeAgent, Script};
use callbox_link::fresh_wake;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::{awake, open, prepare, soon};

#[tokio::test]
async fn a_tunnel_needs_an_awake_machine_and_a_listening_port() {
    let agent = FakeAgent::new(Script::default());
    let link = open(&agent).await;
    let error = soon(link.tunnel(8080)).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("wrong-phase"));
    let error = soon(link.wake(&fresh_wake("x"))).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("wrong-phase"));
    link.prepare(&prepare()).await.unwrap();
    link.wake(&fresh_wake("x")).await.unwrap();
    let error = soon(link.tunnel(9)).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("not-found"));
    soon(link.tunnel(8080)).await.unwrap();
}

#[tokio::test]
async fn http_goes_through_a_tunnel() {
    let (_agent, link) = awake(Script::default()).await;
    let mut tunnel = link.tunnel(8080).await.unwrap();
    let request = "PUT /echo/a?b=c HTTP/1.1\r\nhost: bot\r\nx-try: 1\r\n\
                   connection: close\r\ncontent-length: 4\r\n\r\nbody";
    tunnel.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(tunnel.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let told: Value = serde_json::from_str(body).unwrap();
    assert_eq!(told["method"], "PUT");
    assert_eq!(told["path"], "/echo/a?b=c");
    assert_eq!(told["headers"]["x-try"], "1");
    assert_eq!(told["body"], "body");
}

#[tokio::test]
async fn a_websocket_greets_echoes_and_says_bye() {
    let (agent, link) =
        awake(Script { greeting: vec![vec![1, 2], vec![3]], ..Script::default() }).await;
    let tunnel = link.tunnel(8080).await.unwrap();
    let url = "ws://bot/ws?body=e30=";
    let (mut socket, _) = soon(tokio_tungstenite::client_async(url, tunnel)).await.unwrap();
    for greeting in [vec![1u8, 2], vec![3]] {
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::binary(greeting));
    }
    for number in 0..50u8 {
        socket.send(Message::binary(vec![number; 640])).await.unwrap();
    }
    for number in 0..50u8 {
        let frame = soon(socket.next()).await.unwrap().unwrap();
        assert_eq!(frame, Message::binary(vec![number; 640]));
    }
    socket.send(Message::text("bye")).await.unwrap();
    assert!(matches!(soon(socket.next()).await.unwrap().unwrap(), Message::Close(_)));
    assert!(soon(socket.next()).await.is_none());
    drop(socket);
    let seen = agent.wait_for(|seen| seen.bot_exited).await;
    assert_eq!(seen.websockets, ["/ws?body=e30="]);
    assert_eq!(seen.websockets_closed, 1);
}

#[tokio::test]
async fn ten_megabytes_go_through_a_tunnel_in_order() {
    let (_agent, link) = awake(Script::default()).await;
    let tunnel = link.tunnel(8080).await.unwrap();
    let (socket, _) = tokio_tungstenite::client_async("ws://bot/ws", tunnel).await.unwrap();
    let (mut sink, mut stream) = socket.split();
    const FRAMES: u32 = 160;
    let frame = |n: u32| Message::binary(n.to_le_bytes().repeat(16 * 1024));
    let sending = async {
        for number in 0..FRAMES {
            sink.send(frame(number)).await.unwrap();
        }
    };
    let receiving = async {
        for number in 0..FRAMES {
            assert!(stream.next().await.unwrap().unwrap() == frame(number), "frame {number}");
        }
    };
    soon(async { tokio::join!(sending, receiving) }).await;
}

#[tokio::test]
async fn many_tunnels_work_side_by_side_and_one_stalled_one_stops_nobody() {
    let (agent, link) = awake(Script::default()).await;
    // Nobody reads this one: its window fills up, the others' must not.
    let stalled = link.tunnel(8080).await.unwrap();
    let (mut stalled, _) = tokio_tungstenite::client_async("ws://bot/ws", stalled).await.unwrap();
    let flood = tokio::spawn(async move {
        loop {
            if stalled.send(Message::binary(vec![0; 65536])).await.is_err() {
                return;
            }
        }
    });
    let talks = (0..64u32).map(|number| {
        let link = link.clone();
        async move {
            let tunnel = link.tunnel(8080).await.unwrap();
            let (mut socket, _) =
                tokio_tungstenite::client_async("ws://bot/ws", tunnel).await.unwrap();
            for round in 0..10u32 {
                let said = json!([number, round]).to_string();
                socket.send(Message::text(said.clone())).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(said));
            }
            socket
        }
    });
    let sockets = soon(futures::future::join_all(talks)).await;
    assert_eq!(sockets.len(), 64);
    assert_eq!(agent.seen().tunnels, 65);
    flood.abort();
}
