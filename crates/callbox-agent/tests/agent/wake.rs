use callbox_link::{LinkError, fresh_wake};
use callbox_protocol::agent::{CommandReady, Phase};

use crate::bots::http_bot;
use crate::house::{House, command, session, soon};

#[tokio::test]
async fn the_bots_process_reseeds_with_a_secret_of_its_own() {
    let house = House::new();
    let link = house.link().await;
    soon(link.prepare(&http_bot(&house, ""))).await.unwrap();
    let wake = fresh_wake("m");
    let awake = soon(link.wake(&wake)).await.unwrap();
    assert_eq!(awake.bot_reseeded, Some(true));
    let asked = std::fs::read_to_string(house.path("asked-_callbox-wake")).unwrap();
    assert!(asked.contains(&wake.generation_id), "{asked}");
    assert!(!asked.contains(&wake.entropy));
    assert!(asked.starts_with("POST /_callbox/wake"), "{asked}");
    assert_eq!(link.health().await.unwrap().phase, Phase::Awake);
}

#[tokio::test]
async fn a_bot_that_does_not_reseed_gets_no_session() {
    let house = House::new();
    let link = house.link().await;
    soon(link.prepare(&http_bot(&house, "no-reseed"))).await.unwrap();
    let error = soon(link.wake(&fresh_wake("m"))).await.unwrap_err();
    assert!(matches!(error, LinkError::NotReseeded { .. }), "{error}");
    let error = soon(link.session(&session())).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("wrong-phase"));
}

#[tokio::test]
async fn calls_out_of_turn_are_refused() {
    let house = House::new();
    let link = house.link().await;
    let refused = |error: LinkError| assert_eq!(error.agent_code(), Some("wrong-phase"));
    refused(soon(link.wake(&fresh_wake("m"))).await.unwrap_err());
    refused(soon(link.freeze()).await.unwrap_err());
    refused(soon(link.session(&session())).await.unwrap_err());
    refused(soon(link.tunnel(8080)).await.unwrap_err());
    soon(link.prepare(&command(&["true"], CommandReady::Started))).await.unwrap();
    let mut weak = fresh_wake("m");
    weak.entropy = "00".repeat(8);
    let error = soon(link.wake(&weak)).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("bad-request"));
    let awake = soon(link.wake(&fresh_wake("m"))).await.unwrap();
    assert_eq!(awake.bot_reseeded, None);
    // The host did not see the answer, and asks again.
    soon(link.wake(&fresh_wake("m"))).await.unwrap();
}
