//! A bot that dies in its call, in a real machine, and the one that goes on in the next.

use std::time::Duration;

use crate::support::{Dispatcher, Home, PATIENCE, Wire};

const BOTS: &str = r#"
# Dies some time after its call began, but only in the session's first machine.
[bots.twice]
image = "tiny"
contract = "command"
argv = ["sh", "-c", "test $CALLBOX_INCARNATION = 2 || (sleep 12; kill -KILL $$) & exec python3 /app/http_bot.py"]
memory_mib = 256
disk_mib = 64
restarts = { most = 1 }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_websocket_hears_the_second_machines_bot() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let session = dispatcher.start("twice").await;
    let mut wire = Wire::join(&session).await;
    assert!(wire.answers().await, "the first bot");
    assert_eq!(home.machines(), 1);
    let died = async {
        while dispatcher.session(&session.id).await["restarts"] != 1 {
            assert!(home.machines() <= 1, "never two at once");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, died).await.expect("the bot dies in its call");
    // Held until the second bot is ready.
    let asked = std::time::Instant::now();
    assert!(wire.answers().await, "the second bot");
    println!("a fresh machine's bot answered {} ms after the death", asked.elapsed().as_millis());
    assert_eq!((home.machines(), home.relays().len()), (1, 1), "the relay is the same");
    let now = dispatcher.session(&session.id).await;
    assert_eq!((&now["state"], &now["incarnation"]), (&"live".into(), &2.into()), "{now}");
    let why = &now["restarted_because"];
    assert_eq!(why["code"], "bot-failed", "{why}");
    assert!(why["detail"].as_str().unwrap().contains("signal 9"), "{why}");
    let log = dispatcher.log_of(&session.id).await;
    let died = "dispatcher: the bot died (the bot was ended by signal 9): a fresh machine, 2 of 2";
    assert!(log.iter().any(|line| line == died), "{log:#?}");
    let shown = dispatcher.run(&["show", &session.id]).await.expect(0);
    assert!(shown.stdout.contains("machine 2, as the bot before died"), "{}", shown.stdout);
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    dispatcher.stop().await;
}
