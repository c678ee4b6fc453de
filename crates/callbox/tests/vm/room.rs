//! What a real machine takes of its host, and who waits when there is no more.

use std::{collections::BTreeMap, sync::Arc};

use callbox_core::SessionId;
use callbox_machines::{
    BotMachine, BotRun, Local, Network, ReserveSize, StartFrom, contract,
    local::{AcceleratorChoice, HostConfig},
};
use callbox_protocol::agent::{Contract, Reseed};

use crate::support::{Dispatcher, Home, PATIENCE, Setting, Wire, agent, until};

const TINY: &str = "[bots.tiny]\nimage = \"tiny\"\nmemory_mib = 256\ndisk_mib = 64\n";

fn id(number: u128) -> SessionId {
    SessionId::parse(&format!("{number:032x}")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_of_this_host_keep_the_contract_of_all_providers() {
    let home = Home::new();
    let mut config = HostConfig::new(home.data(), agent());
    config.accelerator = AcceleratorChoice::Tcg;
    config.clone_timeout = PATIENCE;
    let local = Local::open(config).await.unwrap();
    let bot = |start| BotMachine {
        bot: "tiny".into(),
        image: "tiny".into(),
        memory_mib: 256,
        vcpus: 1,
        disk_mib: 64,
        network: Network::None,
        start,
        cloud: callbox_machines::Cloud::default(),
        reserve: ReserveSize::NONE,
        run: BotRun {
            contract: Contract::Http { reseed: Reseed::Hook },
            argv: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            port: 8080,
            ready_timeout_ms: 240_000,
        },
    };
    let clone = contract::specs(Arc::new(bot(StartFrom::Clone)), [id(1), id(2)]);
    contract::check(&local, &clone).await;
    assert_eq!(home.machines(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_room_waits_and_what_machines_use_is_shown() {
    let home = Home::new();
    // One machine: 256 MiB, as much again for the template, 64 for its process and 64 translated.
    let setting = Setting { local: "host_memory_mib = 700\n", ..Setting::default() };
    let dispatcher = Dispatcher::ready_as(&home, TINY, &setting).await;
    let first = dispatcher.start("tiny").await;
    let second = dispatcher.start("tiny").await;
    let waiting = dispatcher.session(&second.id).await;
    assert_eq!((&waiting["state"], &waiting["queue"]["position"]), (&"queued".into(), &1.into()));
    let session = dispatcher.when("ready", &first.id).await;
    assert_eq!(session["state"], "joining", "{session}");
    assert_eq!(home.machines(), 1, "nothing was started that has no room");

    let wire = Wire::join(&first).await;
    let listed = dispatcher.run(&["ps", "--memory", "--json"]).await.expect(0).json();
    assert_eq!(listed["memory"]["machines"], 1, "{listed:#}");
    let unique = listed["memory"]["unique_bytes"].as_u64().unwrap();
    let bound = (256 + 64 + 64) << 20;
    assert!((1 << 20..bound).contains(&unique), "{unique} bytes; it may have {bound}");
    let shown = dispatcher.run(&["show", &second.id]).await.expect(0).stdout;
    assert!(shown.contains("position 1"), "{shown}");

    wire.hang_up().await;
    let ended = dispatcher.when("ended", &first.id).await;
    assert!(ended["usage"]["end_unique_bytes"].as_u64() >= Some(1 << 20), "{ended:#}");
    let session = dispatcher.when("ready", &second.id).await;
    assert_eq!(session["state"], "joining", "it had its turn: {session}");
    assert!(session["stages_ms"]["admitted"].as_f64() > Some(0.0), "{session:#}");
    Wire::join(&second).await.hang_up().await;
    dispatcher.end_of(&second.id).await;
    until("all are gone", PATIENCE, || home.machines() == 0).await;
    dispatcher.stop().await;
}
