//! Lists: filters, pages, and the lies that troubles make them tell.

use std::time::Duration;

use callbox_standins::fly::trouble::{Effect, Rule};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api::{Api, MACHINES};

fn ids(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap().iter();
    list.map(|machine| machine["id"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn lists_can_be_narrowed() {
    let api = Api::plain();
    let one = api.create(json!({"metadata": {"session": "1", "by": "us"}})).await;
    let two = api.create(json!({"metadata": {"session": "2", "by": "us"}})).await;
    api.wait(&two, "started").await;
    api.act(&two, "stop").await;
    api.wait(&two, "stopped").await;
    api.wait(&one, "started").await;
    for (query, expected) in [
        ("", 2),
        ("metadata.by=us", 2),
        ("metadata.by=us&metadata.session=1", 1),
        ("metadata.by=them", 0),
        ("state=stopped", 1),
        ("state=stopped,started", 2),
        ("region=iad", 2),
        ("region=ams", 0),
    ] {
        let list = api.get(&format!("{MACHINES}?{query}")).await;
        assert_eq!(list.body.as_array().unwrap().len(), expected, "{query}");
    }
    let summary = api.get(&format!("{MACHINES}?summary=true&state=started")).await;
    assert_eq!(ids(&summary.body), [&one]);
    assert!(summary.body[0].get("config").is_none() && summary.body[0].get("events").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_organisations_list_has_pages() {
    let api = Api::plain();
    for _ in 0..5 {
        api.create(json!({})).await;
    }
    let mut found = Vec::new();
    let mut path = "/v1/orgs/personal/machines?limit=2".to_owned();
    loop {
        let page = api.get(&path).await.body;
        found.extend(ids(&page["machines"]).into_iter().map(str::to_owned));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/orgs/personal/machines?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 5);
    assert_eq!(api.get("/v1/orgs/other/machines").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_list_may_not_know_a_new_machine_yet() {
    let api = Api::plain();
    api.standin.add_trouble(Rule::always(Effect::ListOmitsNew { for_ms: 5_000 }));
    let id = api.create(json!({})).await;
    assert_eq!(api.get(MACHINES).await.body, json!([]));
    assert_eq!(api.get(&format!("{MACHINES}/{id}")).await.status, 200, "get knows it");
    sleep(Duration::from_secs(6)).await;
    assert_eq!(ids(&api.get(MACHINES).await.body), [&id]);
}

#[tokio::test(start_paused = true)]
async fn a_list_may_show_a_machine_that_is_gone() {
    let api = Api::plain();
    let id = api.create(json!({})).await;
    api.wait(&id, "started").await;
    api.delete(&format!("{MACHINES}/{id}?force=true")).await;
    api.wait(&id, "destroyed").await;
    assert_eq!(api.get(MACHINES).await.body, json!([]));
    api.standin.add_trouble(Rule::always(Effect::ListShowsDestroyed { for_ms: 5_000 }));
    let list = api.get(MACHINES).await.body;
    assert_eq!((ids(&list), &list[0]["state"]), (vec![id.as_str()], &json!("started")));
    sleep(Duration::from_secs(6)).await;
    assert_eq!(api.get(MACHINES).await.body, json!([]));
    let truth = api.get("/_standin/machines").await.body;
    assert_eq!(truth, json!([]));
}

#[tokio::test(start_paused = true)]
async fn troubles_are_set_listed_and_taken_away_over_http() {
    let api = Api::plain();
    let rule = json!({"kind": "answer", "status": 418, "error": "teapot", "name": "cb-*",
                      "count": 1});
    let set = api.post("/_standin/trouble", rule).await;
    assert_eq!((set.status, &set.body["id"]), (201, &json!(1)));
    let create = || api.post(MACHINES, json!({"name": "cb-1", "config": {"image": "a"}}));
    assert_eq!(create().await.status, 418);
    assert_eq!(create().await.status, 200);
    let listed = api.get("/_standin/trouble").await.body;
    assert_eq!((&listed[0]["struck"], &listed[0]["rule"]["kind"]), (&json!(1), &json!("answer")));
    assert_eq!(api.delete("/_standin/trouble/1").await.status, 204);
    assert_eq!(api.delete("/_standin/trouble/1").await.status, 404);
    for wrong in [
        json!({"kind": "earthquake"}),
        json!({"kind": "server_error", "status": 200, "when": "before"}),
        json!({"kind": "stuck_created", "action": "dance"}),
        json!({"kind": "stuck_created", "probability": 2}),
        json!({"kind": "stuck_created", "nam": "cb-1"}),
        json!({"kind": "timeout", "when": "half"}),
    ] {
        assert_eq!(api.post("/_standin/trouble", wrong.clone()).await.status, 400, "{wrong}");
    }
    assert_eq!(api.get("/_standin").await.body["backend"], "fake");
}
