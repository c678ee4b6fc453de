//! What every provider keeps, as a test that its own tests call.

use std::{sync::Arc, time::Duration};

use callbox_core::{FaultKind, MachineFacts, SessionId, machine_name};
use tokio::time::timeout;

use crate::{Admission, BotMachine, Claims, MachineSpec, Made, Provider, Reserve};

/// How long a machine may take. Only tests wait so long.
const PATIENCE: Duration = Duration::from_secs(300);

/// Starts, finds, measures and ends two machines of `first`'s bot, whose names nobody uses.
///
/// # Panics
/// When the provider does not keep the contract, with what it is that it does not keep.
pub async fn check(provider: &dyn Provider, [first, second]: &[MachineSpec; 2]) {
    admission_books_nothing(provider, first, second).await;
    nobody_is_there(provider, first).await;

    let facts = start(provider, first).await;
    assert!(!facts.accelerator.is_empty() && !facts.start.is_empty(), "{facts:?}");
    start(provider, first).await;
    let listed = provider.list().await.expect("machines are listed");
    assert_eq!(listed.iter().filter(|listed| listed.name == first.name).count(), 1, "{listed:?}");

    let usage = provider.usage(&first.name).await.expect("a machine that runs is measured");
    if let Some(usage) = usage {
        assert!(usage.unique_bytes > 0, "a machine that runs has memory of its own");
        let again = provider.usage(&first.name).await.expect("measured again").expect("as before");
        assert!(again.cpu >= usage.cpu, "time of processors is never given back");
    }
    provider.connect(&first.name).await.expect("there is a second way to its agent");

    provider.destroy(&first.name).await.expect("a machine is ended");
    nobody_is_there(provider, first).await;
    let listed = provider.list().await.expect("machines are listed");
    assert!(listed.iter().all(|listed| listed.name != first.name), "it is gone");
}

/// Two specs of this bot for [`check`].
pub fn specs(bot: Arc<BotMachine>, ids: [SessionId; 2]) -> [MachineSpec; 2] {
    ids.map(|id| {
        let (name, bot) = (machine_name(id, 1), Arc::clone(&bot));
        MachineSpec { name, incarnation: 1, bot, version: None, made: Made::default() }
    })
}

/// Asking for room changes nothing, and what is in reserve is given up at most once.
async fn admission_books_nothing(
    provider: &dyn Provider,
    first: &MachineSpec,
    second: &MachineSpec,
) {
    let nobody = Claims::default();
    let alone = provider.admit(first, &nobody).expect("it answers");
    assert!(
        matches!(alone, Admission::Granted | Admission::Prepared),
        "there is room for one: {alone:?}"
    );
    let mut claimed = Claims::default();
    claimed.add(first, true);
    let beside = provider.admit(second, &claimed).expect("it answers");
    for _ in 0..3 {
        assert_eq!(provider.admit(first, &nobody).expect("it answers"), alone);
        let again = provider.admit(second, &claimed).expect("it answers");
        assert_eq!(again, beside, "nothing was booked");
    }
    assert_ne!(provider.max_starting(), Some(0), "nobody could ever start");
    for Reserve { bot, level, .. } in provider.reserves() {
        assert!(level.target > 0 || level.ready == 0, "{bot}: a reserve that nobody wants");
    }
}

async fn start(provider: &dyn Provider, spec: &MachineSpec) -> MachineFacts {
    let started = timeout(PATIENCE, provider.ensure(spec)).await.expect("it starts in time");
    started.expect("it starts").facts
}

async fn nobody_is_there(provider: &dyn Provider, spec: &MachineSpec) {
    provider.destroy(&spec.name).await.expect("ending what is not there is success");
    let found = provider.connect(&spec.name).await.map(|_| "a link");
    assert_eq!(found.expect_err("nobody is there").kind, FaultKind::NotFound);
    match provider.usage(&spec.name).await {
        Ok(None) => {}
        Ok(Some(usage)) => panic!("nobody uses {usage:?}"),
        Err(fault) => assert_eq!(fault.kind, FaultKind::NotFound),
    }
}
