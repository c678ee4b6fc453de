//! What a session costs, and where it is told.

use std::time::Duration;

use callbox_core::{EventKind, Price};
use callbox_machines::{Prices, Script};
use callbox_protocol::api::PriceList;
use serde_json::json;

use crate::app::TestApp;

fn prices() -> Prices {
    // A dollar an hour, and a tenth of it while it waits.
    let price = |nano_usd_per_s| Price { nano_usd_per_s, as_of: "2026-06-07".into() };
    Prices { machine: price(277_778), waiting: price(27_778) }
}

#[tokio::test]
async fn a_session_costs_what_its_machine_did_when_it_began() {
    let app = TestApp::with(Script { prices: Some(prices()), ..Script::default() }).await;
    let (id, _) = app.start(json!({ "bot": "parrot", "transport": "fake" })).await;
    app.wait(&id, "ready").await;
    // Prices may change; what this session costs does not.
    app.provider.set(|script| script.prices = None);
    app.tell(&id, EventKind::ClientLeft { detail: "a test".into() });
    let ended = app.wait(&id, "ended").await;
    let cost = ended.cost.expect("its machine has a price");
    let stages = ended.stages_ms;
    let ran = stages.ended.unwrap() - stages.started.unwrap();
    assert!((cost.machine_ms - ran).abs() <= 1.0, "{cost:?} for {ran} ms");
    let expected = prices().machine.usd(Duration::from_secs_f64(ran / 1000.0));
    assert!((cost.machine_usd - expected).abs() < 1e-6, "{cost:?}, not {expected}");
    assert_eq!(cost.prices_as_of, "2026-06-07");
    app.finish().await;
}

#[tokio::test]
async fn prices_of_bots_and_their_reserves_are_told() {
    let script = Script { prices: Some(prices()), reserve: 3, ..Script::default() };
    let app = TestApp::with(script).await;
    let list: PriceList = app.get("/v1/prices").await.json().await.unwrap();
    let parrot = list.bots.iter().find(|bot| bot.bot == "parrot").expect("a line for it");
    let near = |is: Option<f64>, expected: f64| (is.expect("a price") - expected).abs() < 0.01;
    assert!(near(parrot.session_usd_per_hour, 1.0), "{parrot:?}");
    assert!(near(parrot.reserve_usd_per_day, 7.2), "{parrot:?}");
    assert_eq!(parrot.reserve, 3);
    app.finish().await;
}

#[tokio::test]
async fn what_costs_nothing_says_nothing() {
    let app = TestApp::new().await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    assert_eq!(app.wait(&id, "ready").await.cost, None);
    let list: PriceList = app.get("/v1/prices").await.json().await.unwrap();
    assert_eq!(list.bots.iter().find_map(|bot| bot.session_usd_per_hour), None);
    app.finish().await;
}
