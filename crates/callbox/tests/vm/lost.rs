//! Machines that are lost in the middle of a call: they end, or they stand still.

use rustix::process::{Signal, kill_process};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Dispatcher, Home, Wire};

const BOTS: &str = r#"
[bots.tiny]
image = "tiny"
memory_mib = 256
disk_mib = 64

[bots.tiny.timeouts]
silent_s = 6
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_killed_or_stands_still_ends_its_call_and_no_other() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    for signal in [Signal::KILL, Signal::STOP] {
        let session = dispatcher.start("tiny").await;
        let mut wire = Wire::join(&session).await;
        echo(&mut wire, "before").await;
        let [victim] = home.machine_processes()[..] else { panic!("one machine runs") };
        let other = dispatcher.start("tiny").await;
        let mut other_wire = Wire::join(&other).await;
        echo(&mut other_wire, "beside it").await;

        kill_process(victim, signal).unwrap();
        let closed = wire.closed().await;
        assert_eq!(closed, Some((1011, "machine-lost".to_owned())), "{signal:?}");
        let (code, detail) = dispatcher.end_of(&session.id).await;
        assert_eq!(code, "machine-lost", "{signal:?}: {detail}");
        echo(&mut other_wire, "still there").await;
        other_wire.hang_up().await;
        assert_eq!(dispatcher.end_of(&other.id).await.0, "client-left");
    }
    dispatcher.stop().await;
}

async fn echo(wire: &mut Wire, text: &str) {
    wire.send(text).await.unwrap();
    assert_eq!(wire.next().await, Message::text(text));
}
