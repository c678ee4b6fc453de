//! `callbox template`: what its users do with templates by hand.

use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Dispatcher, Home, Ran, Wire};

const BOTS: &str = r#"
[bots.tiny]
image = "tiny"
memory_mib = 256
disk_mib = 64

[bots.cold]
image = "tiny"
start = "cold"
memory_mib = 256
disk_mib = 64
"#;

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_baked_listed_and_removed_beside_calls() {
    let home = Home::without_templates();
    let config = home.configure(BOTS);
    let config = config.to_str().unwrap();
    let run = async |arguments: &[&str]| {
        Ran::of(home.callbox(&[&["template"], arguments, &["--config", config]].concat())).await
    };
    assert_eq!(run(&["list", "--json"]).await.expect(0).json(), Value::Array(Vec::new()));
    let baked = run(&["bake", "--json"]).await.expect(0).json();
    assert_eq!(baked[0]["bots"], serde_json::json!(["tiny"]), "a cold bot has none: {baked}");
    assert_eq!((&baked[0]["usable"], &baked[0]["clones"]), (&true.into(), &0.into()));
    assert_eq!(run(&["bake", "--json"]).await.expect(0).json(), baked, "made twice");
    let refused = run(&["bake", "--bot", "nobody"]).await.expect(2);
    assert!(refused.stderr.contains("it has cold, tiny"), "{refused:?}");

    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let session = dispatcher.start("tiny").await;
    let mut wire = Wire::join(&session).await;
    wire.send("before").await.unwrap();
    assert_eq!(wire.next().await, Message::text("before"));
    let listed = run(&["list", "--json"]).await.expect(0).json();
    assert_eq!(listed[0]["clones"], 1, "{listed}");

    let id = baked[0]["id"].as_str().unwrap();
    let refused = run(&["rm", "no-such"]).await.expect(2);
    assert!(refused.stderr.contains("no-such"), "{refused:?}");
    let removed = run(&["rm", &id[..8]]).await.expect(0);
    assert!(removed.stdout.contains(id), "{removed:?}");
    assert_eq!(run(&["list", "--json"]).await.expect(0).json(), Value::Array(Vec::new()));
    wire.send("after").await.unwrap();
    assert_eq!(wire.next().await, Message::text("after"), "a clone lost its template");
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    dispatcher.stop().await;
}
