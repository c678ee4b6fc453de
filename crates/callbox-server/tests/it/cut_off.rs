//! A dispatcher whose store does not answer.

use std::sync::Arc;

use callbox_server::{serve, store::Memory};
use tokio::time::{Duration, timeout};

use crate::{
    moody::{Mood, Moody},
    still::{Outside, Still},
};

const BOTS: &str = "[bots.here]\n";

#[tokio::test(start_paused = true)]
async fn one_that_is_alone_on_a_store_for_several_holds_still() {
    let store = Moody { shared: true, ..Moody::default() };
    let outside = Outside::new(store.clone());
    let app = Still::new(&outside, BOTS).await;
    let id = app.start("here").await;
    let session = app.until(id, |session| session.ready).await;
    assert!(app.plane.replicas.may_act(&session));
    store.is(Mood::Away);
    // Another one that starts now would be on our store, and would not be seen.
    let holds_still = async {
        let mut lease = app.plane.replicas.lease();
        while app.plane.replicas.may_act(&session) {
            lease.changed().await.unwrap();
        }
    };
    timeout(Duration::from_secs(6), holds_still).await.expect("before anybody takes it over");
    store.is(Mood::Fine);
    outside.provider.agent(&session.machine_name().unwrap()).unwrap().exit_bot(0);
    assert_eq!(app.end(id).await, "bot-finished");
}

#[tokio::test(start_paused = true)]
async fn one_whose_file_nobody_shares_goes_on() {
    let outside = Outside::new(Memory::default());
    let app = Still::new(&outside, BOTS).await;
    assert!(!app.plane.replicas.may_be_shared());
}

#[tokio::test(start_paused = true)]
async fn that_it_lives_is_said_while_it_takes_up_what_was_left() {
    let store = Moody::default();
    store.is(Mood::Slow);
    let outside = Outside::new(store.clone());
    let plane = Still::plane(&outside, BOTS, vec![Arc::clone(&outside.provider) as _]);
    let beginning = plane.spawn({
        let plane = Arc::clone(&plane);
        async move { serve::begin(&plane).await.is_ok() }
    });
    timeout(Duration::from_secs(60), store.beat_so_often(4)).await.expect("it lives");
    store.is(Mood::Fine);
    assert_eq!(beginning.await, Some(true));
}
