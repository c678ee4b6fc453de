//! The client against every trouble: what it says of it, and what is true.

use std::time::Duration;

use callbox_fly::wire::{HostStatus, State};
use callbox_fly::{Action, CapacityScope, ErrorKind, Happened, ListFilter, Wait};
use callbox_standins::fly::backend::Times;
use callbox_standins::fly::trouble::{Effect, Preset, Rule, When};
use tokio::time::Instant;

use crate::client::{LIMIT, Served, named, served, soon};

#[tokio::test]
async fn whether_a_troubled_create_happened_is_never_told_wrongly() {
    for (effect, kind, happened) in [
        (Effect::Timeout { when: When::Before }, ErrorKind::Timeout { currently: None }, false),
        (Effect::Timeout { when: When::After }, ErrorKind::Timeout { currently: None }, true),
        (Effect::ServerError { status: 500, when: When::Before }, ErrorKind::Server, false),
        (Effect::ServerError { status: 502, when: When::After }, ErrorKind::Server, true),
        (Effect::Cut { when: When::Before }, ErrorKind::AnswerLost, false),
        (Effect::Cut { when: When::After }, ErrorKind::AnswerLost, true),
        (Effect::Cut { when: When::Half }, ErrorKind::AnswerLost, true),
    ] {
        let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
        standin.add_trouble(Rule::always(effect.clone()).on(Action::Create).times(1));
        let error = client.create("bots", &named("cb-1"), LIMIT).await.unwrap_err();
        assert_eq!((&error.kind, error.happened()), (&kind, Happened::Maybe), "{effect:?}");
        assert_eq!(standin.machines().len(), usize::from(happened), "{effect:?}");
        // Asked again by the same name, there is one machine, whatever had become of the first.
        match client.create("bots", &named("cb-1"), LIMIT).await {
            Ok(_) => assert!(!happened, "{effect:?}"),
            Err(error) => {
                assert!(happened, "{effect:?}: {error}");
                let ErrorKind::NameTaken { machine_id: Some(id) } = error.kind else {
                    panic!("{error}");
                };
                assert_eq!(id, standin.machines()[0].1.id);
            }
        }
        assert_eq!(standin.machines().len(), 1);
    }
}

#[tokio::test]
async fn every_refusal_is_understood_and_nothing_happened() {
    use CapacityScope::{Host, Region};
    let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
    for (preset, kind) in [
        (Preset::RateLimited, ErrorKind::RateLimited { retry_after: None }),
        (Preset::NoCapacity, ErrorKind::Capacity { scope: Region }),
        (Preset::NoCapacityConflict, ErrorKind::Capacity { scope: Region }),
        (Preset::NoMemory, ErrorKind::Capacity { scope: Host }),
        (Preset::NoRoomOnHost, ErrorKind::Capacity { scope: Host }),
        (Preset::NoAddress, ErrorKind::Capacity { scope: Host }),
        (Preset::HostFrozen, ErrorKind::Capacity { scope: Host }),
        (Preset::Quota, ErrorKind::Quota { region: Some("iad".into()) }),
        (Preset::MachineLimit, ErrorKind::MachineLimit),
        (Preset::Concurrent, ErrorKind::ConcurrentUpdate),
        (Preset::LeaseHeld, ErrorKind::LeaseHeld),
        (Preset::ImageMissing, ErrorKind::ImageMissing),
        (Preset::WrongState, ErrorKind::WrongState { state: Some(State::Created) }),
        (Preset::NoToken, ErrorKind::Unauthorized),
        (Preset::NotYours, ErrorKind::Forbidden),
    ] {
        standin.add_trouble(Rule::always(Effect::Refuse { preset }).times(1));
        let error = client.create("bots", &named("cb-1"), LIMIT).await.unwrap_err();
        assert_eq!((error.kind.clone(), error.happened()), (kind, Happened::No), "{error}");
    }
    assert!(standin.machines().is_empty());
    client.create("bots", &named("cb-1"), LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_machine_can_be_stuck_and_be_destroyed_all_the_same() {
    let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
    standin.add_trouble(Rule::always(Effect::StuckCreated).times(1));
    let machine = client.create("bots", &named("cb-1"), LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Started]);
    let deadline = Instant::now() + Duration::from_millis(200);
    let error = client.wait_until("bots", &machine.id, &wait, deadline).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Timeout { .. }), "{error}");
    client.destroy("bots", &machine.id, false, LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Destroyed]);
    client.wait_until("bots", &machine.id, &wait, soon()).await.unwrap();
}

#[tokio::test]
async fn a_slow_create_arrives_in_the_end() {
    let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
    standin.add_trouble(Rule::always(Effect::SlowCreate { ms: 300 }));
    let began = Instant::now();
    let machine = client.create("bots", &named("cb-1"), LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Started]);
    client.wait_until("bots", &machine.id, &wait, soon()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_machine_that_cannot_be_launched_goes_by_itself() {
    let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
    standin.add_trouble(Rule::always(Effect::LaunchFails));
    let machine = client.create("bots", &named("cb-1"), LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Started, State::Failed, State::Destroyed]);
    let reached = client.wait_until("bots", &machine.id, &wait, soon()).await.unwrap();
    assert_eq!(reached.state, State::Destroyed);
}

#[tokio::test]
async fn a_wait_that_times_out_at_the_gateway_is_asked_again() {
    let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
    standin.add_trouble(Rule::always(Effect::WaitTimesOut).times(1));
    let slow = Rule::always(Effect::SlowCreate { ms: 500 });
    standin.add_trouble(slow);
    let machine = client.create("bots", &named("cb-1"), LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Started]);
    let reached = client.wait_until("bots", &machine.id, &wait, soon()).await.unwrap();
    assert_eq!(reached.state, State::Started);
    assert_eq!(standin.calls().answers(Action::Wait, 504), 1);
}

#[tokio::test]
async fn a_start_may_boot_cold_without_a_word() {
    let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
    let machine = client.create("bots", &named("cb-1"), LIMIT).await.unwrap();
    let reach = async |state: State| {
        let wait = Wait::for_any([state]);
        client.wait_until("bots", &machine.id, &wait, soon()).await.unwrap()
    };
    reach(State::Started).await;
    client.suspend("bots", &machine.id, LIMIT).await.unwrap();
    reach(State::Suspended).await;
    standin.add_trouble(Rule::always(Effect::ColdStart));
    let started = client.start("bots", &machine.id, LIMIT).await.unwrap();
    assert_eq!(started.previous_state, Some(State::Suspended));
    reach(State::Started).await;
    assert_eq!(standin.troubles()[0].struck, 1);
}

#[tokio::test]
async fn a_lost_host_takes_the_machine_with_it() {
    let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
    standin.add_trouble(Rule::always(Effect::HostLost { after_ms: 50 }).times(1));
    let machine = client.create("bots", &named("cb-1"), LIMIT).await.unwrap();
    let deadline = soon();
    let lost = loop {
        let got = client.get("bots", &machine.id, LIMIT).await.unwrap();
        if got.host_status == Some(HostStatus::Unreachable) {
            break got;
        }
        assert!(Instant::now() < deadline, "the host is not lost");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(lost.config.is_none());
    assert_eq!(lost.metadata().unwrap()["session"], "cb-1");
    let filter = ListFilter {
        metadata: [("session".to_owned(), "cb-1".to_owned())].into(),
        ..ListFilter::default()
    };
    assert_eq!(client.list("bots", &filter, LIMIT).await.unwrap().len(), 1);
    let error = client.start("bots", &machine.id, LIMIT).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Server);
    client.destroy("bots", &machine.id, true, LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Destroyed]);
    client.wait_until("bots", &machine.id, &wait, soon()).await.unwrap();
}

#[tokio::test]
async fn a_program_can_be_made_to_end() {
    let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
    standin.add_trouble(Rule::always(Effect::Exits { after_ms: 20, code: 9 }));
    let mut request = named("cb-1");
    request.config.restart = Some(callbox_fly::wire::Restart {
        policy: Some(callbox_fly::wire::RestartPolicy::No),
        max_retries: None,
    });
    let machine = client.create("bots", &request, LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Stopped]);
    client.wait_until("bots", &machine.id, &wait, soon()).await.unwrap();
    let events = client.events("bots", &machine.id, None, LIMIT).await.unwrap();
    let exit = events.iter().find_map(callbox_fly::wire::Event::exit).unwrap();
    assert_eq!((exit.exit_code, exit.requested_stop), (Some(9), false));
}

#[tokio::test]
async fn slowness_meets_the_callers_limit() {
    let Served { standin, client, tasks: _serving } = served(Times::NONE).await;
    standin.add_trouble(Rule::always(Effect::Slow { ms: 500 }).on(Action::Create));
    let short = Duration::from_millis(100);
    let error = client.create("bots", &named("cb-1"), short).await.unwrap_err();
    assert_eq!((error.kind.clone(), error.happened()), (ErrorKind::AnswerLost, Happened::Maybe));
}
