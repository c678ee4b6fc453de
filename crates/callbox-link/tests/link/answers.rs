use callbox_link::fake::{FakeAgent, Script};
use callbox_link::{LinkError, fresh_wake};
use callbox_protocol::agent::AgentError;
use futures::StreamExt;

use crate::{awake, open, prepare, soon};

#[tokio::test]
async fn over_long_and_unreadable_lines_are_errors() {
    let (agent, link) = awake(Script::default()).await;
    agent.log("fine");
    agent.raw_log(b"\n\n{\"seq\":");
    agent.raw_log(b"nonsense}\n");
    let mut logs = link.logs(0);
    assert_eq!(soon(logs.next()).await.unwrap().unwrap().text, "fine");
    let error = soon(logs.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, LinkError::Protocol { .. }), "{error}");
    assert!(soon(logs.next()).await.is_none());

    let (agent, link) = awake(Script::default()).await;
    agent.raw_log(&vec![b'x'; 3 * 1024 * 1024]);
    let error = soon(link.logs(0).next()).await.unwrap().unwrap_err();
    assert!(matches!(error, LinkError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn unreadable_and_endless_answers_are_errors() {
    type Expected = fn(&LinkError) -> bool;
    let answers: [(Vec<u8>, Expected); 3] = [
        (b"{\"phase\":".to_vec(), |e| matches!(e, LinkError::Protocol { .. })),
        (b"\xff\xfe".to_vec(), |e| matches!(e, LinkError::Protocol { .. })),
        (vec![b' '; 2 * 1024 * 1024], |e| matches!(e, LinkError::TooLarge { .. })),
    ];
    for (answer, expected) in answers {
        let agent =
            FakeAgent::new(Script { raw_answer: Some(("health", answer)), ..Script::default() });
        let link = open(&agent).await;
        let error = soon(link.health()).await.unwrap_err();
        assert!(expected(&error), "{error}");
    }
}

#[tokio::test]
async fn the_agents_own_words_come_through() {
    let error = AgentError {
        code: "bot-exited".to_owned(),
        message: "it ended with code 1".to_owned(),
        log_tail: vec!["ImportError".to_owned()],
    };
    let agent = FakeAgent::new(Script { refuse_prepare: Some(error), ..Script::default() });
    let link = open(&agent).await;
    let error = soon(link.prepare(&prepare())).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("bot-exited"));
    assert_eq!(error.log_tail(), ["ImportError"]);
    assert!(error.to_string().contains("it ended with code 1"), "{error}");
}

#[tokio::test]
async fn a_wake_is_only_good_when_everything_is() {
    let scripts = [
        Script { generation_id: Some("0".repeat(32)), ..Script::default() },
        Script { kernel_reseeded: false, ..Script::default() },
        Script { clock_set: false, ..Script::default() },
        Script { unix_ns: Some("1700000000000000000".to_owned()), ..Script::default() },
        Script { unix_ns: Some("4000000000000000000".to_owned()), ..Script::default() },
        Script { unix_ns: Some("noon".to_owned()), ..Script::default() },
        Script { names_renewed: Some(false), ..Script::default() },
        Script { bot_reseeded: Some(false), ..Script::default() },
    ];
    for script in scripts {
        let agent = FakeAgent::new(script);
        let link = open(&agent).await;
        link.prepare(&prepare()).await.unwrap();
        let error = soon(link.wake(&fresh_wake("x"))).await.unwrap_err();
        assert!(matches!(error, LinkError::NotReseeded { .. }), "{error}");
    }
    // No bot runs yet, and an agent of before there was this word.
    let silent = Script { bot_reseeded: None, names_renewed: None, ..Script::default() };
    awake(silent).await;
}

#[tokio::test]
async fn a_clock_that_was_set_late_is_set_again() {
    // It answers at its leisure, and its clock has stood still all the while.
    let delay = std::time::Duration::from_millis(100);
    let slow = awake(Script { call_delay: delay, ..Script::default() }).await.0;
    let seen = slow.seen();
    let times = (&seen.clocks[0].unix_ns, &seen.wakes[0].unix_ns);
    assert!(times.0 > times.1, "{times:?}");
}

#[tokio::test]
async fn a_fresh_wake_is_fresh_and_secret() {
    let (one, two) = (fresh_wake("x"), fresh_wake("x"));
    assert_ne!(one.generation_id, two.generation_id);
    assert_ne!(one.entropy, two.entropy);
    assert_eq!((one.generation_id.len(), one.entropy.len()), (32, 128));
    assert!(!format!("{one:?}").contains(&one.entropy));
}
