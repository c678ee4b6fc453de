//! A new version of a bot's image, while a call on the old one goes on.

use serde_json::Value;
use tokio::time::timeout;

use crate::support::{Dispatcher, Home, PATIENCE, Started, Talk, Wire, until};

/// The bot of the image, which says first what it was made from.
const BOTS: &str = r#"
[bots.tiny]
image = "tiny"
argv = ["python3", "-c", """
import os, sys
sys.path.insert(0, '/app')
import http_bot as bot
bot.Handler.disable_nagle_algorithm = True
made = open('/app/version').read() if os.path.exists('/app/version') else 'one'
serve = bot.Handler.websocket
def websocket(self):
    print('tiny: made from', made, flush=True)
    serve(self)
bot.Handler.websocket = websocket
bot.Server(('127.0.0.1', 8080), bot.Handler).serve_forever()
"""]
memory_mib = 256
disk_mib = 64
reserve = { min = 1, max = 1 }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_on_its_version_while_new_calls_get_the_next_one() {
    let home = Home::without_templates();
    home.own_image("tiny");
    let dispatcher = Dispatcher::ready(&home, BOTS).await;
    let (old, wire) = joined(&dispatcher).await;
    let talk = Talk::on(wire);
    talk.hear(50).await;
    let one = version(&dispatcher, &old).await;

    home.rebuild_image("tiny", "two").await;
    let (same, wire) = joined(&dispatcher).await;
    assert_eq!(version(&dispatcher, &same).await, one, "nobody asked for the new one");
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&same.id).await.0, "client-left");

    talk.measure_anew();
    let rolling = dispatcher.command(&["drain", "--bot", "tiny", "--json"]).output();
    let mut rolling = std::pin::pin!(rolling);
    let served = async {
        while current(&dispatcher).await == one {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        switched = timeout(PATIENCE, served) => switched.expect("the new version is served"),
        ended = &mut rolling => panic!("a call still has the old version: {ended:?}"),
    }
    let (new, mut wire) = joined(&dispatcher).await;
    let two = version(&dispatcher, &new).await;
    assert_ne!(two, one);
    assert!(wire.answers().await);
    talk.hear(50).await;
    let heard = talk.measure_anew();
    println!(
        "over the rollout: longest gap between two frames of audio {} ms, median round trip {:.1} ms",
        heard.longest_gap.as_millis(),
        heard.median_ms(),
    );
    assert_eq!((home.templates_made(), home.versions_of("tiny")), (2, 2));
    for (session, from) in [(&old, "one"), (&new, "two")] {
        let said = format!("made from {from}");
        let log = dispatcher.log_of(&session.id).await;
        assert!(log.iter().any(|line| line.ends_with(&said)), "{log:#?}");
    }

    talk.stop().await.hang_up().await;
    assert_eq!(dispatcher.end_of(&old.id).await.0, "client-left");
    let rolled = timeout(PATIENCE, rolling).await.expect("the old version goes").unwrap();
    assert!(rolled.status.success(), "{rolled:?}");
    let rolled: Value = serde_json::from_slice(&rolled.stdout).unwrap();
    let versions = rolled["versions"].as_array().unwrap();
    assert_eq!((versions.len(), &versions[0]["version"]), (1, &two), "{rolled}");
    until("nothing of the old version is left", PATIENCE, || {
        (home.templates_made(), home.versions_of("tiny")) == (1, 1)
    })
    .await;
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&new.id).await.0, "client-left");
    dispatcher.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_bot_does_not_start_is_not_served() {
    let home = Home::without_templates();
    home.own_image("tiny");
    let bots = r#"
[bots.tiny]
image = "tiny"
memory_mib = 256
disk_mib = 64
"#;
    let dispatcher = Dispatcher::ready(&home, bots).await;
    let one = current(&dispatcher).await;
    home.rebuild_image_as("tiny", "broken", &["python3", "-c", "raise SystemExit('broken')"]).await;
    let rolled = dispatcher.run(&["drain", "--bot", "tiny"]).await.expect(1);
    rolled.explains(&["was not rolled out", "all is as it was"]);
    assert_eq!(current(&dispatcher).await, one);
    let table = dispatcher.run(&["rollout", "status"]).await.expect(0);
    assert!(table.stdout.contains("failed"), "{table:?}");
    let (session, wire) = joined(&dispatcher).await;
    assert_eq!(version(&dispatcher, &session).await, one);
    wire.hang_up().await;
    assert_eq!(dispatcher.end_of(&session.id).await.0, "client-left");
    assert_eq!(home.templates_made(), 1);
    dispatcher.stop().await;
}

async fn joined(dispatcher: &Dispatcher<'_>) -> (Started, Wire) {
    let session = dispatcher.start("tiny").await;
    let mut wire = Wire::join(&session).await;
    assert!(wire.answers().await);
    (session, wire)
}

async fn version(dispatcher: &Dispatcher<'_>, session: &Started) -> Value {
    let version = dispatcher.session(&session.id).await["version"].clone();
    assert!(version.is_string(), "{version}");
    version
}

/// The version that new calls get.
async fn current(dispatcher: &Dispatcher<'_>) -> Value {
    dispatcher.get("/v1/rollouts?bot=tiny").await.body["rollouts"][0]["versions"][0]["version"]
        .clone()
}
