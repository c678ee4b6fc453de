//! The longest time of a call: enforced from outside, after a warning that reaches the machine.

use crate::support::{Dispatcher, Home, Wire};

const BRIEF: &str = r#"
[bots.brief]
image = "tiny"
memory_mib = 256
disk_mib = 64
[bots.brief.timeouts]
live_s = 6
warn_s = 4
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_ended_at_its_longest_time_and_its_machine_was_told_before() {
    let home = Home::new();
    let dispatcher = Dispatcher::ready(&home, BRIEF).await;
    let session = dispatcher.start("brief").await;
    let mut wire = Wire::join(&session).await;
    assert_eq!(wire.closed().await, Some((1000, "max-duration".to_owned())));
    let (code, detail) = dispatcher.end_of(&session.id).await;
    assert_eq!((code.as_str(), detail.contains("6 s")), ("max-duration", true), "{detail}");

    let ended = dispatcher.session(&session.id).await;
    assert_eq!(ended["warning"]["state"], "delivered", "{ended:#}");
    assert_eq!(ended["outcome"], "completed", "{ended:#}");
    let log = dispatcher.log_of(&session.id).await;
    let told = |line: &String| line.starts_with("agent:") && line.contains("(max-duration)");
    assert_eq!(log.iter().filter(|line| told(line)).count(), 1, "{log:#?}");
    dispatcher.stop().await;
}
