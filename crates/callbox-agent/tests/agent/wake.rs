use callbox_link::{LinkError, fresh_wake};
use callbox_protocol::agent::{CommandReady, Contract, Phase, Prepare, Reseed};

use crate::bots::http_bot;
use crate::house::{House, command, log_line, session, soon};

#[tokio::test]
async fn the_bots_process_reseeds_with_a_secret_of_its_own() {
    let house = House::new();
    let link = house.link().await;
    soon(link.prepare(&http_bot(&house, ""))).await.unwrap();
    let wake = fresh_wake("m");
    let awake = soon(link.wake(&wake)).await.unwrap();
    assert_eq!(awake.bot_reseeded, Some(true));
    assert_eq!(awake.reseeded, ["everything"]);
    assert!(awake.took_us.contains_key("bot"), "{awake:?}");
    let asked = std::fs::read_to_string(house.path("asked-_callbox-wake")).unwrap();
    assert!(asked.contains(&wake.generation_id), "{asked}");
    assert!(!asked.contains(&wake.entropy));
    assert!(asked.starts_with("POST /_callbox/wake"), "{asked}");
    assert_eq!(link.health().await.unwrap().phase, Phase::Awake);
}

#[tokio::test]
async fn a_bot_that_does_not_prove_that_it_reseeded_gets_no_session() {
    let cases = [
        ("no-reseed", "answers 500"),
        ("bare-200", "without the generation_id"),
        ("other-generation", "another generation_id"),
    ];
    for (manners, told) in cases {
        let house = House::new();
        let link = house.link().await;
        soon(link.prepare(&http_bot(&house, manners))).await.unwrap();
        let error = soon(link.wake(&fresh_wake("m"))).await.unwrap_err();
        assert!(matches!(error, LinkError::NotReseeded { .. }), "{error}");
        assert!(error.to_string().contains(told), "{error}");
        let error = soon(link.session(&session())).await.unwrap_err();
        assert_eq!(error.agent_code(), Some("wrong-phase"));
    }
}

/// A bot that is reseeded by this script.
fn reseeded_by(house: &House, script: &str) -> Prepare {
    let mut asked = http_bot(house, "no-reseed");
    let words = ["sh", "-c", script, house.directory.path().to_str().unwrap()];
    let argv = words.map(str::to_owned).into();
    asked.contract = Contract::Http { reseed: Reseed::Command { argv } };
    asked
}

#[tokio::test]
async fn a_command_reseeds_bots_that_have_no_hook() {
    let house = House::new();
    let link = house.link().await;
    let script = "echo thank you; cat > $0/entropy; env > $0/environment";
    soon(link.prepare(&reseeded_by(&house, script))).await.unwrap();
    let mut secrets = Vec::new();
    // A machine in reserve is woken more than once.
    for _ in 0..2 {
        let wake = fresh_wake("m");
        let awake = soon(link.wake(&wake)).await.unwrap();
        assert_eq!(awake.bot_reseeded, Some(true));
        assert_eq!(awake.reseeded, ["command:sh"]);
        let entropy = std::fs::read_to_string(house.path("entropy")).unwrap();
        let is_line = entropy.len() == 65 && entropy.ends_with('\n');
        assert!(is_line && hex::decode(entropy.trim_end()).is_ok(), "{entropy:?}");
        let environment = std::fs::read_to_string(house.path("environment")).unwrap();
        let id = format!("CALLBOX_GENERATION_ID={}\n", wake.generation_id);
        assert!(environment.contains(&id) && environment.contains("FROM_PREPARE=yes"));
        assert!(!environment.contains(entropy.trim_end()), "{environment}");
        secrets.push(entropy);
    }
    assert_ne!(secrets[0], secrets[1]);
    log_line(&link, "reseed command: thank you").await;
    soon(link.session(&session())).await.unwrap();
}

#[tokio::test]
async fn a_reseed_command_that_fails_fails_the_wake_in_its_own_words() {
    let cases = [
        ("echo no such socket >&2; exit 3", "code 3; it said: no such socket"),
        ("kill -9 $$", "signal 9"),
    ];
    for (script, told) in cases {
        let house = House::new();
        let link = house.link().await;
        soon(link.prepare(&reseeded_by(&house, script))).await.unwrap();
        let error = soon(link.wake(&fresh_wake("m"))).await.unwrap_err();
        assert!(matches!(error, LinkError::NotReseeded { .. }), "{error}");
        assert!(error.to_string().contains(told), "{error}");
        let error = soon(link.session(&session())).await.unwrap_err();
        assert_eq!(error.agent_code(), Some("wrong-phase"));
    }
}

#[tokio::test]
async fn a_reseed_command_that_hangs_is_ended() {
    let house = House::new();
    let link = house.link().await;
    let script = "echo $$ > $0/pid; echo waiting for ever; sleep 1000";
    soon(link.prepare(&reseeded_by(&house, script))).await.unwrap();
    let error = soon(link.wake(&fresh_wake("m"))).await.unwrap_err();
    assert!(error.to_string().contains("within 10 s; it said: waiting for ever"), "{error}");
    let pid = std::fs::read_to_string(house.path("pid")).unwrap();
    // It was killed; the kernel takes it away a moment later.
    let gone = async {
        while std::path::Path::new(&format!("/proc/{}", pid.trim())).exists() {
            tokio::task::yield_now().await;
        }
    };
    soon(gone).await;
}

#[tokio::test]
async fn a_reseed_command_that_is_not_there_is_named_before_the_bot_starts() {
    let house = House::new();
    let link = house.link().await;
    let mut asked = http_bot(&house, "");
    let argv = vec!["no-such-reseed".to_owned()];
    asked.contract = Contract::Http { reseed: Reseed::Command { argv } };
    let error = soon(link.prepare(&asked)).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("bot-not-found"));
    assert!(error.to_string().contains("no-such-reseed"), "{error}");
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
