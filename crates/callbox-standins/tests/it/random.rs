//! Whatever is called in whatever order: no panic, no machine without a way out, and the list
//! is what was created and not destroyed.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::Method;
use callbox_standins::fly::Limits;
use callbox_standins::fly::backend::{Exit, Program, Times};
use callbox_standins::fly::trouble::{Effect, Rule, When};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api::{Api, MACHINES};

#[derive(Clone, Debug)]
enum Step {
    Create { launch: bool, auto_destroy: bool, policy: usize, name: u8 },
    Call { machine: usize, action: usize },
    Exit { machine: usize, code: i32 },
    LoseHost { machine: usize },
    Trouble { effect: usize },
    Pass { ms: u64 },
}

const ACTIONS: [&str; 8] =
    ["start", "stop", "suspend", "restart", "signal", "update", "destroy", "force"];
const POLICIES: [&str; 3] = ["no", "on-failure", "always"];

fn effects() -> Vec<Effect> {
    vec![
        Effect::StuckCreated,
        Effect::LaunchFails,
        Effect::SlowCreate { ms: 3_000 },
        Effect::HostLost { after_ms: 700 },
        Effect::Exits { after_ms: 900, code: 1 },
        Effect::ColdStart,
        Effect::Timeout { when: When::After },
        Effect::ServerError { status: 503, when: When::After },
        Effect::Cut { when: When::Before },
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (any::<bool>(), any::<bool>(), 0..3_usize, 0..6_u8).prop_map(
            |(launch, auto_destroy, policy, name)| Step::Create {
                launch, auto_destroy, policy, name
            }
        ),
        6 => (any::<usize>(), 0..ACTIONS.len())
            .prop_map(|(machine, action)| Step::Call { machine, action }),
        1 => (any::<usize>(), 0..2_i32).prop_map(|(machine, code)| Step::Exit { machine, code }),
        1 => any::<usize>().prop_map(|machine| Step::LoseHost { machine }),
        1 => (0..effects().len()).prop_map(|effect| Step::Trouble { effect }),
        3 => (0..5_000_u64).prop_map(|ms| Step::Pass { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_called(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(walk(steps));
    }
}

async fn walk(steps: Vec<Step>) {
    let api = Api::new(Times::default(), Limits::none(), Program::until_signal());
    let mut made: Vec<String> = Vec::new();
    for step in steps {
        let chosen = |machine: usize| match made.is_empty() {
            true => "00000000000000".to_owned(),
            false => made[machine % made.len()].clone(),
        };
        let answered = match step {
            Step::Create { launch, auto_destroy, policy, name } => {
                let body = json!({
                    "name": format!("cb-{name}"),
                    "skip_launch": !launch,
                    "config": {
                        "image": "parrot",
                        "auto_destroy": auto_destroy,
                        "restart": {"policy": POLICIES[policy]},
                    },
                });
                Some(api.post(MACHINES, body).await)
            }
            Step::Call { machine, action } => {
                Some(act(&api, &chosen(machine), ACTIONS[action]).await)
            }
            Step::Exit { machine, code } => {
                api.standin.exit(&chosen(machine), Exit::code(code)).await;
                None
            }
            Step::LoseHost { machine } => {
                api.standin.lose_host(&chosen(machine)).await;
                None
            }
            Step::Trouble { effect } => {
                api.standin.add_trouble(one(effects()[effect].clone()));
                None
            }
            Step::Pass { ms } => {
                sleep(Duration::from_millis(ms)).await;
                None
            }
        };
        if let Some(answered) = answered {
            let known = [200, 400, 404, 408, 409, 412, 500, 503];
            assert!(known.contains(&answered.status), "{} {}", answered.status, answered.body);
        }
        // What a troubled create made is there, too.
        for (_, machine) in api.standin.machines() {
            if !made.contains(&machine.id) {
                made.push(machine.id);
            }
        }
        list_is_the_truth(&api, &made).await;
    }
    every_machine_has_a_way_out(&api).await;
}

async fn act(api: &Api, id: &str, action: &str) -> crate::api::Answered {
    let machine = format!("{MACHINES}/{id}");
    match action {
        "signal" => api.post(&format!("{machine}/signal"), json!({"signal": "SIGUSR1"})).await,
        "update" => api.post(&machine, json!({"config": {"image": "parrot"}})).await,
        "destroy" => api.call(Method::DELETE, &machine, Value::Null).await,
        "force" => api.delete(&format!("{machine}?force=true")).await,
        other => api.act(id, other).await,
    }
}

async fn list_is_the_truth(api: &Api, made: &[String]) {
    let list = api.get(MACHINES).await;
    let all = api.get(&format!("{MACHINES}?include_deleted=true")).await;
    let ids = |body: &Value, with: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
        let machines = body.as_array().unwrap().iter();
        machines
            .filter(|machine| with(machine["state"].as_str().unwrap()))
            .map(|machine| machine["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let living = ids(&list.body, &|_| true);
    let gone = ids(&all.body, &|state| state == "destroyed");
    let both: BTreeSet<String> = living.union(&gone).cloned().collect();
    assert!(living.is_disjoint(&gone));
    assert!(made.iter().all(|id| both.contains(id)), "{made:?} {both:?}");
}

async fn every_machine_has_a_way_out(api: &Api) {
    api.standin.clear_troubles();
    // Passing states pass, unless a trouble holds them, or their host is gone.
    sleep(Duration::from_secs(600)).await;
    for (_, machine) in api.standin.machines() {
        let state = machine.state.clone().unwrap();
        let lost = machine.host_status == Some(callbox_fly::wire::HostStatus::Unreachable);
        // One whose program ends again and again passes through `starting` for good.
        let rests = lost || state == "created".into();
        let rests = rests || api.wait(&machine.id, "settled").await.status == 200;
        assert!(rests, "{state} lasts");
        let gone = api.delete(&format!("{MACHINES}/{}?force=true", machine.id)).await;
        assert_eq!(gone.status, 200, "{state}: {}", gone.body);
        let gone = api.wait(&machine.id, "destroyed").await;
        assert_eq!(gone.status, 200, "{state}: {}", gone.body);
    }
    assert_eq!(api.get(MACHINES).await.body, json!([]));
}

/// Strikes once, and never the calls by which the test looks.
fn one(effect: Effect) -> Rule {
    let rule = Rule::always(effect.clone()).times(1);
    match effect {
        Effect::Timeout { .. } | Effect::ServerError { .. } | Effect::Cut { .. } => {
            rule.on(callbox_fly::Action::Create)
        }
        _ => rule,
    }
}
