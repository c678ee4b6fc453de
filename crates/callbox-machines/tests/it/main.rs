//! The fake provider keeps the contract of all providers. `local` does so in the tests of real
//! machines (`crates/callbox/tests/vm/room.rs`).

mod fly;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use callbox_core::{SessionId, Usage};
use callbox_machines::{
    Admission, BotMachine, BotRun, Claims, FakeProvider, MachineSpec, Made, Network, Provider as _,
    ReserveSize, Script, StartFrom, contract,
};
use callbox_protocol::agent::{Contract, Reseed};

fn bot() -> Arc<BotMachine> {
    Arc::new(BotMachine {
        bot: "parrot".into(),
        image: String::new(),
        memory_mib: 256,
        vcpus: 1,
        disk_mib: 64,
        network: Network::None,
        start: StartFrom::Clone,
        cloud: callbox_machines::Cloud::default(),
        reserve: ReserveSize::NONE,
        run: BotRun {
            contract: Contract::Http { reseed: Reseed::Hook },
            argv: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            port: 8080,
            ready_timeout_ms: 1000,
        },
    })
}

fn ids() -> [SessionId; 2] {
    ["6f9619ff-8b86-4d01-b42d-00cf4fc964f1", "6f9619ff-8b86-4d01-b42d-00cf4fc964f2"]
        .map(|text| SessionId::parse(text).expect("a uuid"))
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let usage = Usage { unique_bytes: 1, shared_bytes: 2, cpu: Duration::from_millis(3) };
    for script in [
        Script::default(),
        Script { room: Some(1), max_starting: Some(1), ..Script::default() },
        Script { usage: Some(usage), reserve: 1, ..Script::default() },
    ] {
        let fake = FakeProvider::new(script);
        contract::check(&fake, &contract::specs(bot(), ids())).await;
        assert!(fake.names().is_empty());
    }
}

#[tokio::test]
async fn what_is_promised_from_a_reserve_is_neither_promised_twice_nor_given_up() {
    let fake = FakeProvider::new(Script { reserve: 1, room: Some(1), ..Script::default() });
    let [first, second] = contract::specs(bot(), ids());
    let nobody = Claims::default();
    assert_eq!(fake.admit(&first, &nobody), Ok(Admission::Prepared));
    let mut promised = Claims::default();
    promised.add(&first, true);
    assert!(matches!(fake.admit(&second, &promised), Ok(Admission::Full { .. })));
    assert_eq!(fake.shed(&second, &promised).await, Ok(false));
    assert_eq!(fake.shed(&second, &nobody).await, Ok(true));
    assert!(fake.reserves().is_empty());
}

#[test]
fn claims_are_counted_by_bot_and_taken_back() {
    let (one, other) = (bot(), bot());
    let spec = |n: u32, bot: &Arc<BotMachine>| MachineSpec {
        name: format!("m{n}"),
        incarnation: 1,
        bot: Arc::clone(bot),
        version: None,
        made: Made::default(),
    };
    let mut claims = Claims::default();
    claims.add(&spec(1, &one), true);
    claims.add(&spec(2, &one), false);
    claims.add(&spec(3, &other), true);
    let counts = |claims: &Claims| claims.machines().map(|(_, count)| count).collect::<Vec<_>>();
    let starting =
        |claims: &Claims| claims.starting().map(|spec| spec.name.clone()).collect::<Vec<_>>();
    assert_eq!((claims.count(), counts(&claims)), (3, vec![2, 1]), "two bots, alike as they are");
    assert_eq!(starting(&claims), ["m1", "m3"]);
    claims.remove(&spec(1, &one));
    claims.remove(&spec(2, &one));
    assert_eq!(
        (claims.count(), counts(&claims), starting(&claims)),
        (1, vec![1], vec!["m3".into()])
    );
    claims.remove(&spec(3, &other));
    assert_eq!((claims.count(), counts(&claims), starting(&claims)), (0, vec![], vec![]));
}
