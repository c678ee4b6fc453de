//! The states of a machine and the ways between them, in paused time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::Method;
use callbox_standins::fly::backend::{Boot, Exit, Program, Spread, Times, Word};
use callbox_standins::fly::{Limits, Settings};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api::{Api, MACHINES, settings};

#[tokio::test(start_paused = true)]
async fn a_machine_is_created_booted_stopped_started_and_destroyed() {
    let api = Api::plain();
    let made = api.post(MACHINES, json!({"name": "cb-1", "config": {"image": "parrot"}})).await;
    assert_eq!((made.status, &made.body["state"]), (200, &json!("created")));
    let id = made.body["id"].as_str().unwrap();
    assert_eq!(id.len(), 14);
    assert_eq!(made.body["instance_id"].as_str().unwrap().len(), 26);
    assert_eq!(made.body["config"]["guest"]["memory_mb"], 256);
    assert_eq!(made.body["region"], "iad");
    // Fly refuses a start here, three times out of three.
    let early = api.act(id, "start").await;
    assert_eq!(early.status, 412);
    assert_eq!(
        early.body["error"],
        "failed_precondition: unable to start machine from current state: 'created'"
    );
    let waited = api.wait(id, "started").await;
    assert_eq!((waited.status, &waited.body["state"]), (200, &json!("started")));
    assert_eq!(api.act(id, "start").await.status, 412);
    let running = api.delete(&format!("{MACHINES}/{id}")).await;
    assert_eq!(running.status, 412);
    assert_eq!(api.act(id, "stop").await.body, json!({"ok": true}));
    assert_eq!(api.wait(id, "stopped").await.status, 200);
    assert_eq!(api.act(id, "stop").await.status, 200, "stopping a stopped one is fine");
    let started = api.act(id, "start").await;
    assert_eq!(
        started.body,
        json!({"previous_state": "stopped", "migrated": false, "new_host": ""})
    );
    assert_eq!(api.wait(id, "started").await.status, 200);
    let gone = api.delete(&format!("{MACHINES}/{id}?kill=true")).await;
    assert_eq!((gone.status, gone.body), (200, json!({"ok": true})));
    assert_eq!(api.wait(id, "destroyed").await.status, 200);
    assert_eq!(api.delete(&format!("{MACHINES}/{id}?force=true")).await.status, 404);
    assert_eq!(api.get(MACHINES).await.body, json!([]));
    let all = api.get(&format!("{MACHINES}?include_deleted=true")).await;
    assert_eq!(all.body[0]["state"], "destroyed");
    let events = api.get(&format!("{MACHINES}/{id}/events")).await;
    let kinds: Vec<&str> =
        events.body.as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["destroy", "destroy", "start", "start", "exit", "stop", "start", "start", "launch"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_is_taken_until_its_machine_is_gone() {
    let api = Api::plain();
    let create = || api.post(MACHINES, json!({"name": "cb-1", "config": {"image": "parrot"}}));
    let first = create().await;
    let id = first.body["id"].as_str().unwrap();
    let second = create().await;
    assert_eq!(second.status, 409);
    assert_eq!(
        second.body["error"],
        format!(
            "already_exists: unique machine name violation, machine ID {id} already exists with \
             name \"cb-1\""
        )
    );
    api.delete(&format!("{MACHINES}/{id}")).await;
    api.wait(id, "destroyed").await;
    assert_eq!(create().await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_not_launched_ends_up_stopped() {
    let api = Api::plain();
    let body = json!({"skip_launch": true, "config": {"image": "parrot"}});
    let made = api.post(MACHINES, body).await;
    let id = made.body["id"].as_str().unwrap();
    assert_eq!(made.body["state"], "created");
    assert_eq!(api.wait(id, "stopped").await.status, 200);
    assert_eq!(api.act(id, "start").await.status, 200);
    assert_eq!(api.wait(id, "started").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn an_end_follows_the_configuration() {
    let api = Api::plain();
    let exit = async |config: Value, code: i32| {
        let id = api.create(config).await;
        api.wait(&id, "started").await;
        assert!(api.standin.exit(&id, Exit::code(code)).await);
        sleep(Duration::from_millis(500)).await;
        (api.state(&id).await, id)
    };
    let no = json!({"restart": {"policy": "no"}});
    assert_eq!(exit(no.clone(), 1).await.0, "stopped");
    assert_eq!(exit(json!({}), 0).await.0, "stopped", "on-failure, and it was none");
    let (state, id) = exit(json!({}), 1).await;
    assert_eq!(state, "starting");
    api.wait(&id, "started").await;
    assert_eq!(exit(json!({"restart": {"policy": "always"}}), 0).await.0, "starting");
    let (state, id) = exit(json!({"restart": {"policy": "no"}, "auto_destroy": true}), 3).await;
    assert!(["destroying", "destroyed"].contains(&state.as_str()), "{state}");
    api.wait(&id, "destroyed").await;
    let events = api.get(&format!("{MACHINES}/{id}/events?limit=50")).await;
    let events = events.body.as_array().unwrap();
    let exit = events.iter().find(|event| event["type"] == "exit").unwrap();
    assert_eq!(exit["request"]["exit_event"]["exit_code"], 3);
    assert_eq!(exit["request"]["exit_event"]["requested_stop"], false);
    assert_eq!(exit["source"], "flyd");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_always_fails_is_given_up() {
    let program = Program::new(async |_| Exit::code(1));
    let api = Api::new(Times::NONE, Limits::none(), program);
    let id = api.create(json!({"restart": {"policy": "on-failure", "max_retries": 3}})).await;
    assert_eq!(api.wait(&id, "stopped").await.status, 200);
    let events = api.get(&format!("{MACHINES}/{id}/events?limit=50")).await;
    let exits = events.body.as_array().unwrap().iter().filter(|e| e["type"] == "exit").count();
    assert_eq!(exits, 4);
}

#[tokio::test(start_paused = true)]
async fn who_ignores_the_signal_is_killed_after_the_grace() {
    let program = Program::new(async |_| std::future::pending().await);
    let api = Api::new(Times::NONE, Limits::none(), program);
    let config = json!({"stop_config": {"signal": "SIGTERM", "timeout": "30s"}});
    let id = api.create(config).await;
    api.wait(&id, "started").await;
    let began = Instant::now();
    api.act(&id, "stop").await;
    api.wait(&id, "stopped").await;
    assert_eq!(began.elapsed().as_secs(), 30);
    let got = api.get(&format!("{MACHINES}/{id}")).await;
    assert_eq!(got.body["events"][0]["request"]["exit_event"]["exit_code"], 137);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_machine_goes_on_where_it_was() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = heard.clone();
    let program = Program::new(move |mut launched| {
        let told = told.clone();
        async move {
            told.lock().unwrap().push(format!("boot {:?}", launched.boot));
            loop {
                match launched.words.recv().await {
                    Some(Word::Signal(signal)) => {
                        told.lock().unwrap().push(signal);
                        return Exit::code(0);
                    }
                    Some(Word::Resumed) => told.lock().unwrap().push("resumed".into()),
                    None => return Exit::code(0),
                }
            }
        }
    });
    let api = Api::new(Times::default(), Limits::none(), program);
    let id = api.create(json!({"auto_destroy": false})).await;
    api.wait(&id, "started").await;
    api.act(&id, "suspend").await;
    assert_eq!(api.wait(&id, "suspended").await.status, 200);
    let started = api.act(&id, "start").await;
    assert_eq!(started.body["previous_state"], "suspended");
    api.wait(&id, "started").await;
    // A start breaks off a suspend that is under way.
    api.act(&id, "suspend").await;
    assert_eq!(api.act(&id, "start").await.body["previous_state"], "suspending");
    api.wait(&id, "started").await;
    assert_eq!(*heard.lock().unwrap(), ["boot First", "resumed"]);
    // Stopping a suspended machine forgets its memory.
    api.act(&id, "suspend").await;
    api.wait(&id, "suspended").await;
    api.act(&id, "stop").await;
    api.wait(&id, "stopped").await;
    api.act(&id, "start").await;
    api.wait(&id, "started").await;
    let signal = format!("{MACHINES}/{id}/signal");
    api.post(&signal, json!({"signal": "SIGTERM"})).await;
    api.wait(&id, "stopped").await;
    assert_eq!(*heard.lock().unwrap(), ["boot First", "resumed", "boot Cold", "SIGTERM"]);
}

#[tokio::test(start_paused = true)]
async fn not_everything_can_be_suspended() {
    let api = Api::plain();
    for config in [
        json!({"guest": {"cpus": 2, "memory_mb": 4096}}),
        json!({"init": {"swap_size_mb": 512}}),
        json!({"schedule": "daily"}),
    ] {
        let id = api.create(config).await;
        assert_eq!(api.act(&id, "suspend").await.status, 412, "created");
        api.wait(&id, "started").await;
        assert_eq!(api.act(&id, "suspend").await.status, 412);
        assert_eq!(api.state(&id).await, "started");
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_makes_a_new_version_and_boots_it() {
    let api = Api::plain();
    let id = api.create(json!({"metadata": {"a": "1"}})).await;
    let first = api.wait(&id, "started").await.body["version"].as_str().unwrap().to_owned();
    let path = format!("{MACHINES}/{id}");
    let body = json!({"config": {"image": "parrot"}, "current_version": "wrong"});
    assert_eq!(api.post(&path, body).await.status, 409);
    let body = json!({"config": {"image": "parrot", "env": {"A": "2"}}, "current_version": first});
    let updated = api.post(&path, body).await;
    assert_eq!((updated.status, &updated.body["state"]), (200, &json!("replacing")));
    assert_ne!(updated.body["instance_id"], first);
    assert_eq!(updated.body["config"].get("metadata"), None, "nothing is merged");
    assert_eq!(api.act(&id, "start").await.status, 412);
    let old = api.get(&format!("{path}/wait?state=started&version={first}")).await;
    assert!(old.body["error"].as_str().unwrap().contains("currently replaced"));
    assert_eq!(api.wait(&id, "started").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_wait_says_when_it_came_to_nothing() {
    let times = Times { build: Spread::fixed(90_000), ..Times::NONE };
    let api = Api::new(times, Limits::none(), Program::until_signal());
    let id = api.create(json!({})).await;
    let began = Instant::now();
    let waited = api.get(&format!("{MACHINES}/{id}/wait?state=started&timeout=7")).await;
    assert_eq!((waited.status, began.elapsed().as_secs()), (408, 7));
    assert_eq!(
        waited.body["error"],
        "deadline_exceeded: machine failed to reach desired state, started, currently created"
    );
    let waited = api.get(&format!("{MACHINES}/{id}/wait")).await;
    assert_eq!((waited.status, began.elapsed().as_secs()), (408, 67));
    for bad in ["0", "61", "-1", "abc"] {
        let waited = api.get(&format!("{MACHINES}/{id}/wait?timeout={bad}")).await;
        assert_eq!(waited.status, 400);
        assert_eq!(
            waited.body["error"],
            "invalid_argument: invalid WaitMachineRequest.Timeout: value must be inside range \
             [1s, 1m0s]"
        );
    }
    let settled = api.get(&format!("{MACHINES}/{id}/wait?state=failed,settled")).await;
    assert_eq!((settled.status, &settled.body["state"]), (200, &json!("started")));
}

#[tokio::test(start_paused = true)]
async fn the_program_is_told_what_a_machine_on_fly_is_told() {
    let seen = Arc::new(Mutex::new(None));
    let told = seen.clone();
    let program = Program::new(move |launched| {
        *told.lock().unwrap() = Some((launched.env, launched.spec, launched.boot));
        std::future::pending()
    });
    let api = Api::new(Times::NONE, Limits::none(), program);
    let config = json!({
        "env": {"A": "b"},
        "files": [{"guest_path": "/etc/callbox", "raw_value": "aGFsbG8="}],
    });
    let id = api.create(config).await;
    api.wait(&id, "started").await;
    let (env, spec, boot) = seen.lock().unwrap().take().unwrap();
    assert_eq!(env["FLY_MACHINE_ID"], id);
    assert_eq!(env["FLY_APP_NAME"], "bots");
    assert_eq!(env["FLY_VM_MEMORY_MB"], "256");
    assert_eq!(env["A"], "b");
    assert_eq!(spec.config.files[0].raw_value.as_deref(), Some("aGFsbG8="));
    assert_eq!(boot, Boot::First);
}

#[tokio::test(start_paused = true)]
async fn apps_and_their_machines_come_and_go() {
    let api = Api::plain();
    let app = json!({"app_name": "more", "org_slug": "personal"});
    let made = api.post("/v1/apps", app.clone()).await;
    assert_eq!(made.status, 201);
    assert!(made.headers["set-cookie"].to_str().unwrap().starts_with("fly_flaps_affinity="));
    let again = api.post("/v1/apps", app).await;
    assert_eq!((again.status, &again.body["status"]), (422, &json!("name_taken")));
    let body = json!({"name": "m", "config": {"image": "parrot"}});
    let made = api.post("/v1/apps/more/machines", body).await;
    let id = made.body["id"].as_str().unwrap();
    assert_eq!(api.get(&format!("{MACHINES}/{id}")).await.status, 404, "not of this app");
    assert_eq!(api.get("/v1/apps/more").await.body["machine_count"], 1);
    assert_eq!(api.get("/v1/apps?org_slug=personal").await.body["total_apps"], 2);
    assert_eq!(api.delete("/v1/apps/more").await.status, 202);
    assert_eq!(api.get("/v1/apps/more").await.body["error"], "app not found");
    assert_eq!(api.get("/v1/apps/more/machines").await.status, 404);
    sleep(Duration::from_secs(10)).await;
    assert!(api.standin.machines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn tokens_open_what_they_may() {
    let mut settings: Settings = settings(Limits::none());
    settings.apps.push("other".into());
    settings.tokens.push(callbox_standins::fly::Grant {
        token: callbox_fly::Token::new("deploy"),
        apps: Some(vec!["bots".into()]),
    });
    let api = Api::with(settings, Times::NONE, Program::until_signal());
    let get = async |path: &str, value: &str| {
        let headers = [("authorization", value)];
        let answered = api.call_with(Method::GET, path, Value::Null, &headers).await;
        (answered.status, answered.body["error"].as_str().unwrap_or_default().to_owned())
    };
    for form in ["Bearer fm2_test", "FlyV1 fm2_test", "Bearer FlyV1 fm2_test", "Bearer deploy"] {
        assert_eq!(get("/v1/apps/bots", form).await.0, 200, "{form}");
    }
    for form in ["Bearer wrong", "fm2_test", "Basic fm2_test", ""] {
        assert_eq!(get("/v1/apps/bots", form).await, (401, "invalid token".into()), "{form}");
        assert_eq!(get("/_standin/calls", form).await.0, 401);
    }
    assert_eq!(get("/v1/apps/other", "Bearer deploy").await, (403, "unauthorized".into()));
    assert_eq!(get("/v1/apps", "Bearer deploy").await.0, 403);
    assert_eq!(get("/_standin/calls", "Bearer deploy").await.0, 401);
    assert_eq!(get("/v1/platform/regions", "").await.0, 200);
    assert_eq!(get("/v2/apps", "Bearer fm2_test").await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_lease_keeps_others_out_until_it_ends() {
    let api = Api::plain();
    let id = api.create(json!({})).await;
    api.wait(&id, "started").await;
    let path = format!("{MACHINES}/{id}/lease");
    assert_eq!(api.get(&path).await.status, 404);
    let taken = api.post(&path, json!({"ttl": 30})).await;
    assert_eq!((taken.status, &taken.body["status"]), (201, &json!("success")));
    let nonce = taken.body["data"]["nonce"].as_str().unwrap();
    for refused in [api.post(&path, json!({"ttl": 30})).await, api.act(&id, "stop").await] {
        assert_eq!(refused.status, 409);
        let message = refused.body["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("machine ID {id} lease currently held by ")));
    }
    let headers = [("authorization", "Bearer fm2_test"), ("fly-machine-lease-nonce", nonce)];
    let stop = format!("{MACHINES}/{id}/stop");
    assert_eq!(api.call_with(Method::POST, &stop, Value::Null, &headers).await.status, 200);
    let released = api.call_with(Method::DELETE, &path, Value::Null, &headers).await;
    assert_eq!(released.body, json!({"status": "success", "data": {"ok": true}}));
    api.post(&path, json!({"ttl": 5})).await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(api.act(&id, "start").await.status, 200, "it has run out");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_there_is_refused() {
    let api = Api::plain();
    api.fake.set_image("parrot", false);
    let refused = api.post(MACHINES, json!({"config": {"image": "parrot"}})).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body["error"].as_str().unwrap().contains("MANIFEST_UNKNOWN"));
    api.fake.set_image("parrot", true);
    api.create(json!({})).await;
}
