use std::time::Duration;

use callbox_link::fake::{FakeAgent, Script};
use callbox_link::{Carrier, Link, LinkError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::{open, soon};

#[tokio::test]
async fn rubbish_before_the_answer_is_skipped() {
    let mut rubbish = b"\xff\x00CALLBOX/1 OK \nCALLBOX/1 OK 00\n".to_vec();
    rubbish.extend_from_slice(b"CALLBOX/1 OK 00000000000000000000000000000000\n");
    rubbish.extend(std::iter::repeat_n(b'x', 100_000));
    let agent = FakeAgent::new(Script { rubbish, ..Script::default() });
    let link = open(&agent).await;
    soon(link.health()).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_boots_slowly_answers_all_hellos_and_the_latest_counts() {
    let agent =
        FakeAgent::new(Script { boot_delay: Duration::from_millis(1200), ..Script::default() });
    let link = open(&agent).await;
    soon(link.health()).await.unwrap();
    assert_eq!(agent.seen().connections, 1);
}

#[tokio::test]
async fn a_late_answer_to_an_earlier_hello_is_not_taken() {
    let (host, mut machine) = tokio::io::duplex(64 * 1024);
    let opening = tokio::spawn(Link::open(Box::new(host) as Carrier));
    // Swallows the first hello, and answers it only when the second one is there.
    let first = soon(read_hello(&mut machine)).await;
    let second = soon(read_hello(&mut machine)).await;
    assert_ne!(first, second);
    let late = format!("CALLBOX/1 OK {first}\n");
    machine.write_all(late.as_bytes()).await.unwrap();
    let latest = format!("CALLBOX/1 OK {second}\n");
    machine.write_all(latest.as_bytes()).await.unwrap();
    // HTTP/2 starts after the second answer, and after nothing else.
    let mut preface = [0; 14];
    soon(machine.read_exact(&mut preface)).await.unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0");
    drop(machine);
    // The agent never sent its settings: the link opens, and is closed.
    if let Ok(link) = soon(opening).await.unwrap() {
        soon(link.closed()).await;
    }
}

async fn read_hello(machine: &mut DuplexStream) -> String {
    let mut line = Vec::new();
    loop {
        match machine.read_u8().await.unwrap() {
            b'\n' if line.is_empty() => {}
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    let line = String::from_utf8(line).unwrap();
    line.strip_prefix("CALLBOX/1 ").unwrap().to_owned()
}

#[tokio::test]
async fn a_carrier_that_ends_before_the_answer_is_an_error() {
    let (host, machine) = tokio::io::duplex(64);
    drop(machine);
    let error = soon(Link::open(Box::new(host))).await.unwrap_err();
    assert!(matches!(error, LinkError::Hello(_)), "{error}");
}
