//! `callbox machines serve`, asked by the client for Fly's API.

use std::time::Duration;

use callbox_fly::wire::{CreateMachine, MachineConfig, State};
use callbox_fly::{Client, ErrorKind, Token, Wait};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

use crate::support::binary::{begin, callbox, finish, interrupt};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn whoever_speaks_to_fly_can_speak_to_it() {
    let trouble = tempfile::NamedTempFile::new().unwrap();
    let rule = r#"[{"kind":"refuse","preset":"no_capacity","count":1}]"#;
    std::fs::write(trouble.path(), rule).unwrap();
    let path = trouble.path().to_str().unwrap();
    let arguments = ["machines", "serve", "--backend", "fake", "--listen", "127.0.0.1:0"];
    let more = ["--app", "bots", "--json", "--trouble", path];
    let variables = [("CALLBOX_STANDIN_TOKEN", "fm2_geheim")];
    let mut child = begin("", &[&arguments[..], &more].concat(), &variables);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
    let serving: Value = serde_json::from_str(&line).unwrap();
    assert!(serving["is"].as_str().unwrap().ends_with("nothing of this is Fly"));
    assert_eq!(serving["token"], "fm2_geheim");
    let base = serving["env"]["FLY_API_HOST"].as_str().unwrap();
    assert_eq!(format!("{}/v1", serving["env"]["FLY_FLAPS_BASE_URL"].as_str().unwrap()), base);

    let fly = Client::new(base, &Token::new("fm2_geheim")).unwrap();
    let config = MachineConfig { image: Some("parrot".into()), ..MachineConfig::default() };
    let request = CreateMachine { config, ..CreateMachine::default() };
    let refused = fly.create("bots", &request, LIMIT).await.unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::Capacity { .. }), "{refused}");
    let machine = fly.create("bots", &request, LIMIT).await.unwrap();
    let wait = Wait::for_any([State::Started]);
    fly.wait_until("bots", &machine.id, &wait, Instant::now() + LIMIT).await.unwrap();
    interrupt(&child);
    finish(child).await.expect(0);
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_words() {
    let serve = async |more: &[&str]| {
        callbox("", &[&["machines", "serve", "--backend", "fake"], more].concat()).await
    };
    let ran = serve(&["--region", "atlantis"]).await;
    ran.expect(2).says(&["\"atlantis\" is no region"]);
    serve(&["--trouble", "/nowhere.json"]).await.expect(1).says(&["/nowhere.json"]);
}
