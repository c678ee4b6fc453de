//! Providers and transports that never answer.

use std::sync::Arc;

use callbox_core::{SessionId, machine_name};
use callbox_machines::{MachineSpec, Made, Provider as _};
use callbox_server::{store::Memory, sweep};
use tokio::time::{Duration, Instant, timeout};

use crate::still::{Outside, Still};

const BOTS: &str = "[bots.here]\n";

/// A machine of a session that nobody knows.
async fn stray_machine(app: &Still, outside: &Outside) {
    let name = machine_name(SessionId(uuid::Uuid::new_v4()), 1);
    let bot = Arc::clone(&app.plane.bot("here").unwrap().machine);
    let (version, made) = (None, Made::default());
    let spec = MachineSpec { name, incarnation: 1, bot, version, made };
    outside.provider.ensure(&spec).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn they_hold_up_no_tear_down() {
    let outside = Outside::new(Memory::default());
    outside.provider.set(|script| {
        script.usage_silent = true;
        script.destroy_silences = 1;
    });
    outside.rooms.set(|script| script.close_silences = 1);
    let app = Still::new(&outside, BOTS).await;
    let id = app.start("here").await;
    let machine = app.until(id, |session| session.ready).await.machine_name().unwrap();
    outside.provider.agent(&machine).unwrap().exit_bot(0);
    assert_eq!(app.end(id).await, "bot-finished");
    assert_eq!(outside.provider.names(), Vec::<String>::new());
    assert!(outside.rooms.rooms().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_list_hides_no_other() {
    let outside = Outside::new(Memory::default());
    let app = Still::new(&outside, BOTS).await;
    outside.provider.set(|script| script.list_silent = true);
    outside.rooms.make(SessionId(uuid::Uuid::new_v4()));
    let survey = timeout(Duration::from_secs(60), sweep::look(&app.plane)).await.unwrap().unwrap();
    assert_eq!((survey.found.len(), survey.not_listed.len()), (1, 1), "{survey:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_removed_holds_up_nothing_else() {
    let outside = Outside::new(Memory::default());
    let app = Still::new(&outside, BOTS).await;
    // Its own sweep is over, and the next one far away.
    outside.rooms.was_listed(1).await;
    for _ in 0..10 {
        stray_machine(&app, &outside).await;
    }
    outside.provider.set(|script| script.destroy_silences = 6);
    let began = Instant::now();
    assert_eq!(sweep::once(&app.plane).await.unwrap(), 4);
    assert!(began.elapsed() < Duration::from_secs(60), "they were waited for side by side");
    assert_eq!(sweep::once(&app.plane).await.unwrap(), 6);
    assert_eq!(outside.provider.names(), Vec::<String>::new());
}
