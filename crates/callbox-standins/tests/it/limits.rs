//! The documented limits, in paused time.

use std::time::Duration;

use callbox_fly::Action;
use callbox_standins::fly::backend::{Program, Times};
use callbox_standins::fly::{Limits, RegionLimits};
use serde_json::json;
use tokio::time::sleep;

use crate::api::{Answered, Api, MACHINES};

fn api(limits: Limits) -> Api {
    Api::new(Times::NONE, limits, Program::until_signal())
}

async fn create(api: &Api, region: &str, memory_mb: u32) -> Answered {
    let config = json!({"image": "parrot", "guest": {"memory_mb": memory_mb}});
    api.post(MACHINES, json!({"region": region, "config": config})).await
}

#[tokio::test(start_paused = true)]
async fn creates_are_limited_by_app_and_other_calls_by_machine() {
    let api = api(Limits::default());
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(create(&api, "iad", 256).await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    let limited = create(&api, "iad", 256).await;
    assert_eq!(limited.body, json!({"error": "resource_exhausted: rate limit exceeded"}));
    assert!(limited.headers.get("retry-after").is_none(), "nothing shows that Fly sends it");
    sleep(Duration::from_millis(1_100)).await;
    assert_eq!(create(&api, "iad", 256).await.status, 200);
    let ids: Vec<String> = api.standin.machines().into_iter().map(|(_, m)| m.id).collect();
    for id in &ids {
        assert_eq!(api.act(id, "stop").await.status, 200, "each machine has its own bucket");
    }
    let mut got = 0;
    while api.get(&format!("{MACHINES}/{}", ids[0])).await.status == 200 {
        got += 1;
    }
    assert_eq!(got, 10);
    let calls = api.standin.calls();
    assert_eq!((calls.of(Action::Create), calls.answers(Action::Create, 429)), (6, 2));
    let shown = api.get("/_standin/calls").await.body;
    assert_eq!(shown["actions"]["create"]["statuses"]["200"], 4);
}

#[tokio::test(start_paused = true)]
async fn the_organisation_has_a_cap_that_stopped_machines_count_for() {
    let api = api(Limits { machines: Some(2), ..Limits::none() });
    let first = create(&api, "iad", 256).await.body["id"].as_str().unwrap().to_owned();
    create(&api, "iad", 256).await;
    api.wait(&first, "started").await;
    api.act(&first, "stop").await;
    api.wait(&first, "stopped").await;
    let refused = create(&api, "iad", 256).await;
    assert_eq!(refused.status, 422);
    assert_eq!(
        refused.body["error"],
        "Your organization has reached its machine limit. Please contact billing@fly.io"
    );
    api.delete(&format!("{MACHINES}/{first}")).await;
    api.wait(&first, "destroyed").await;
    assert_eq!(create(&api, "iad", 256).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_full_region_refuses_and_the_next_one_takes() {
    let mut limits = Limits::none();
    limits.regions.insert("iad".into(), RegionLimits { capacity: Some(1), quota_mb: None });
    limits.regions.insert("dfw".into(), RegionLimits { capacity: None, quota_mb: Some(600) });
    let api = api(limits);
    let first = create(&api, "iad", 256).await;
    let first = first.body["id"].as_str().unwrap();
    let refused = create(&api, "iad", 256).await;
    assert_eq!(
        (refused.status, refused.body),
        (
            422,
            json!({"error": "could not find a candidate host", "status": "insufficient_capacity"})
        )
    );
    assert_eq!(create(&api, "iad,dfw", 512).await.body["region"], "dfw");
    let refused = create(&api, "iad,dfw", 256).await;
    assert_eq!(refused.status, 403);
    let text = refused.body["error"].as_str().unwrap();
    assert!(text.ends_with("which is over the allowed quota. please consider other regions"));
    let (eu, any) = (create(&api, "iad,eu", 256).await, create(&api, "any", 256).await);
    assert_eq!((&eu.body["region"], &any.body["region"]), (&json!("ams"), &json!("ams")));
    // A stopped machine gives its room away, and may not get it back.
    api.wait(first, "started").await;
    api.act(first, "stop").await;
    api.wait(first, "stopped").await;
    assert_eq!(create(&api, "iad", 256).await.status, 200);
    let refused = api.act(first, "start").await;
    assert_eq!(refused.status, 409);
    let text = refused.body["error"].as_str().unwrap();
    assert!(text.starts_with("aborted: could not reserve resource for machine"), "{text}");
    assert_eq!(create(&api, "atlantis", 256).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn placements_say_what_would_go_where() {
    let mut limits = Limits::none();
    limits.regions.insert("lhr".into(), RegionLimits { capacity: Some(2), quota_mb: None });
    let api = api(limits);
    let body = json!({"org_slug": "personal", "region": "lhr,ams", "count": 5});
    let placed = api.post("/v1/platform/placements", body).await;
    let regions = &placed.body["regions"];
    assert_eq!((&regions[0]["region"], &regions[0]["count"]), (&json!("lhr"), &json!(2)));
    assert_eq!((&regions[1]["region"], &regions[1]["count"]), (&json!("ams"), &json!(3)));
}

#[tokio::test(start_paused = true)]
async fn limits_change_while_it_runs() {
    let api = api(Limits { machines: Some(0), ..Limits::none() });
    assert_eq!(create(&api, "iad", 256).await.status, 422);
    let limits = json!({"rates": false, "machines": 1, "regions": {"iad": {"capacity": 3}}});
    let set = api.call(axum::http::Method::PUT, "/_standin/limits", limits).await;
    assert_eq!(set.status, 204);
    assert_eq!(create(&api, "iad", 256).await.status, 200);
    let wrong = json!({"machines": "many"});
    let set = api.call(axum::http::Method::PUT, "/_standin/limits", wrong).await;
    assert_eq!(set.status, 400);
}
