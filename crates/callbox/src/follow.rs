//! Follows one session by its event stream, across broken connections.

use std::time::Duration;

use callbox_protocol::api::{Session, SessionState};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api_client::ApiClient;

/// So many broken streams in a row, and following is given up: the call goes on without.
const ATTEMPTS: u32 = 6;
/// Before the second attempt; doubles from then on.
const PAUSE: Duration = Duration::from_millis(200);

/// The latest known state of a session. Following ends when this is dropped.
pub struct Follow {
    latest: watch::Receiver<Option<Session>>,
    task: JoinHandle<()>,
}

impl Follow {
    /// Begins to follow.
    pub fn start(client: ApiClient, id: String) -> Follow {
        let (sender, latest) = watch::channel(None);
        let task = tokio::spawn(async move { follow(&client, &id, &sender).await });
        Follow { latest, task }
    }

    /// The next state that was not seen yet; pends for ever once there will be none.
    pub async fn changed(&mut self) -> Session {
        loop {
            if self.latest.changed().await.is_err() {
                return std::future::pending().await;
            }
            if let Some(session) = self.latest.borrow_and_update().clone() {
                return session;
            }
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(client: &ApiClient, id: &str, sender: &watch::Sender<Option<Session>>) {
    let mut failures = 0;
    while failures < ATTEMPTS {
        if failures > 0 {
            tokio::time::sleep(PAUSE * 2u32.pow(failures - 1)).await;
        }
        failures += 1;
        let Ok(mut events) = client.events(id).await else { continue };
        while let Some(Ok(session)) = events.next().await {
            failures = 1;
            let ended = session.state == SessionState::Ended;
            sender.send_replace(Some(session));
            if ended {
                return;
            }
        }
    }
}
