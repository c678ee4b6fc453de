//! Clients: they start sessions through the real API, with and without a key, and again when
//! something went wrong; they join, wait, leave, end, and hang up at any moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode},
};
use callbox_core::{Session, SessionId};
use callbox_protocol::api::{ErrorBody, Retry, SESSION_ID_HEADER};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use crate::{
    dice::Dice,
    dispatcher::BOTS,
    world::{World, facts::Cause},
};

/// Who asked, in the body of a session: client and, where every attempt is a start of its own,
/// attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Marker(pub String);

impl Marker {
    /// Of this session.
    pub fn of(session: &Session) -> Marker {
        Marker(session.body["who"].as_str().unwrap_or_default().to_owned())
    }
}

/// What became of everything that was asked for.
#[derive(Debug, Default)]
pub struct Answers {
    /// Answered with a session, by marker.
    pub got: BTreeMap<Marker, BTreeSet<SessionId>>,
    /// Answered that nothing happened.
    pub nothing: BTreeSet<Marker>,
}

/// An answer that came.
struct Answer {
    status: StatusCode,
    session: Option<SessionId>,
    body: Value,
}

/// One client.
pub struct Client {
    /// Where it lives.
    pub world: Arc<World>,
    /// What all clients were told.
    pub answers: Arc<Mutex<Answers>>,
    /// Its chance.
    pub dice: Dice,
    /// Which one it is.
    pub number: usize,
}

/// No answer came: refused, hung up, or the dispatcher died.
struct NoAnswer;

impl Client {
    /// Everything that it does.
    pub async fn run(mut self) {
        let bot = self.dice.one_of(BOTS);
        let key = self.dice.happens(0.7).then(|| format!("key-{}", self.number));
        let Some(id) = self.start(bot, key.as_deref()).await else {
            return self.world.note("client.gave-up", || self.number.to_string());
        };
        if let Some(key) = &key
            && self.dice.happens(0.15)
        {
            self.reuse(bot, key).await;
        }
        self.call(id).await;
    }

    fn marker(&self, attempt: Option<u32>) -> Marker {
        Marker(match attempt {
            Some(attempt) => format!("c{}.{attempt}", self.number),
            None => format!("c{}", self.number),
        })
    }

    /// Starts, as often as it takes.
    async fn start(&mut self, bot: &str, key: Option<&str>) -> Option<SessionId> {
        let wait = self.dice.one_of(&["", "", "", "?wait=started", "?wait=ready"]);
        for attempt in 0..8 {
            let marker = self.marker(key.is_none().then_some(attempt));
            if attempt > 0 {
                self.world.inner().count("client.start-again");
            }
            let asked = if key.is_some() && self.dice.happens(0.1) {
                self.at_two_at_once(bot, &marker, key, wait).await
            } else {
                let replica = self.somewhere();
                self.ask_to_start(replica, bot, &marker, key, wait).await
            };
            match asked {
                Ok(Answer { session: Some(id), .. }) => return Some(id),
                Ok(answer) => match self.judge(&marker, key, &answer) {
                    Retry::Never => return None,
                    Retry::SameKey if key.is_none() => return None,
                    Retry::Safe | Retry::SameKey => {}
                },
                // Whoever has no key cannot know whether there is a session now.
                Err(NoAnswer) if key.is_none() && self.dice.happens(0.5) => return None,
                Err(NoAnswer) => {}
            }
            let pause = self.dice.between(200, 4_000);
            sleep(pause).await;
        }
        None
    }

    /// What an answer without a session says about the next attempt.
    fn judge(&self, marker: &Marker, key: Option<&str>, answer: &Answer) -> Retry {
        let Ok(error) = serde_json::from_value::<ErrorBody>(answer.body.clone()) else {
            let detail = format!("{}: {} {}", marker.0, answer.status, answer.body);
            self.world.violation("an answer that makes no sense", detail);
            return Retry::Never;
        };
        self.world.inner().count(&format!("answer.{}", error.code));
        // With a key, an earlier attempt may have bought it.
        if key.is_none() && error.retry != Retry::SameKey {
            self.answers().nothing.insert(marker.clone());
        }
        error.retry
    }

    async fn at_two_at_once(
        &mut self,
        bot: &str,
        marker: &Marker,
        key: Option<&str>,
        wait: &str,
    ) -> Result<Answer, NoAnswer> {
        self.world.inner().count("client.two-at-once");
        let (one, two) = (self.somewhere(), self.somewhere());
        let other = Client {
            world: Arc::clone(&self.world),
            answers: Arc::clone(&self.answers),
            dice: self.dice.fork(),
            number: self.number,
        };
        let (this, mut that) = (&mut *self, other);
        let (first, second) = tokio::join!(
            Client::ask_to_start(this, one, bot, marker, key, wait),
            Client::ask_to_start(&mut that, two, bot, marker, key, wait)
        );
        first.or(second)
    }

    async fn ask_to_start(
        &mut self,
        replica: usize,
        bot: &str,
        marker: &Marker,
        key: Option<&str>,
        wait: &str,
    ) -> Result<Answer, NoAnswer> {
        let body = json!({ "bot": bot, "body": { "who": marker.0 } });
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/start{wait}"))
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = self.ask(replica, request, Body::from(body.to_string())).await?;
        if let Some(id) = answer.session {
            self.answers().got.entry(marker.clone()).or_default().insert(id);
            self.world.note("acknowledged", || format!("{} {id}", marker.0));
        }
        Ok(answer)
    }

    /// The same key for another request: nothing may come of it.
    async fn reuse(&mut self, bot: &str, key: &str) {
        let marker = Marker(format!("c{}.reused", self.number));
        let replica = self.somewhere();
        if let Ok(answer) = self.ask_to_start(replica, bot, &marker, Some(key), "").await {
            self.world.inner().count(&format!("client.key-reused.{}", answer.status.as_u16()));
            if answer.session.is_some() {
                let detail = format!("{}: {}", marker.0, answer.status);
                self.world.violation("a key that bought another request", detail);
            }
        }
    }

    /// What it does with its session.
    async fn call(&mut self, id: SessionId) {
        match self.dice.number(0, 9) {
            // Never comes.
            0 => {}
            // Ends it at some moment, once or again and again.
            1 | 2 => {
                let pause = self.dice.between(0, 20_000);
                sleep(pause).await;
                self.stop(id).await;
            }
            // Waits for it to be ready first.
            3 => {
                let path = format!("/v1/sessions/{id}?wait=ready&timeout_ms=20000");
                self.look(&path).await;
                self.talk(id).await;
            }
            _ => self.talk(id).await,
        }
        if self.dice.happens(0.3) {
            let path = format!("/v1/sessions/{id}?wait=ended&timeout_ms=60000");
            self.look(&path).await;
        }
    }

    /// Enters the room, talks, leaves; or stays until the call is cut.
    async fn talk(&mut self, id: SessionId) {
        let mut in_the_room = false;
        for _ in 0..60 {
            let pause = self.dice.between(100, 1_500);
            sleep(pause).await;
            if self.world.enter(id) {
                in_the_room = true;
                break;
            }
        }
        if !in_the_room {
            return;
        }
        let talks = self.dice.between(200, 80_000);
        sleep(talks).await;
        match self.dice.number(0, 5) {
            0 => self.stop(id).await,
            1 => {
                self.world.leave(id);
                let pause = self.dice.between(500, 9_000);
                sleep(pause).await;
                self.world.enter(id);
            }
            _ => self.world.leave(id),
        }
    }

    async fn stop(&mut self, id: SessionId) {
        for _ in 0..5 {
            // Whoever asked may have been heard, whatever came back.
            self.world.inner().facts(id).did(Cause::Stopped);
            let replica = self.somewhere();
            let request =
                Request::builder().method(Method::DELETE).uri(format!("/v1/sessions/{id}"));
            if let Ok(answer) = self.ask(replica, request, Body::empty()).await {
                self.world.note("client.stopped", || format!("{id} {}", answer.status.as_u16()));
                if answer.status == StatusCode::ACCEPTED {
                    self.must_be_ending(id);
                    return;
                }
            }
            let pause = self.dice.between(300, 3_000);
            sleep(pause).await;
        }
    }

    /// An end that was acknowledged is written down.
    fn must_be_ending(&self, id: SessionId) {
        let ending = self.world.inner().rows.get(&id).is_some_and(|row| row.state.why().is_some());
        if !ending {
            self.world.violation("an acknowledged end that is not written down", id.to_string());
        }
    }

    async fn look(&mut self, path: &str) {
        let replica = self.somewhere();
        let request = Request::builder().method(Method::GET).uri(path);
        let seen = self.ask(replica, request, Body::empty()).await;
        let what = seen.map_or(0, |answer| answer.status.as_u16());
        self.world.inner().count(&format!("client.looked.{what}"));
    }

    fn somewhere(&mut self) -> usize {
        self.dice.number(0, self.world.weather.replicas as u64 - 1) as usize
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().expect("no panic while held")
    }

    /// One request to one replica. The client may hang up at any moment.
    async fn ask(
        &mut self,
        replica: usize,
        request: axum::http::request::Builder,
        body: Body,
    ) -> Result<Answer, NoAnswer> {
        sleep(self.world.latency(10.0)).await;
        let door = self.world.inner().doors[replica].clone();
        let Some(door) = door else {
            self.world.inner().count("client.nobody-there");
            return Err(NoAnswer);
        };
        let request = request.header("host", "localhost").body(body).expect("it is well-formed");
        let hangs_up = self.world.happens(self.world.weather.hang_up);
        let patience = if hangs_up { self.dice.between(1, 2_000) } else { Duration::from_secs(90) };
        let asked = door.plane.spawn(async move {
            let answer = door.router.oneshot(request).await.expect("the router never fails");
            let status = answer.status();
            let session = answer.headers().get(SESSION_ID_HEADER).cloned();
            let session = session.and_then(|id| SessionId::parse(id.to_str().ok()?));
            let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap_or_default();
            Answer { status, session, body: serde_json::from_slice(&body).unwrap_or_default() }
        });
        let abort = asked.abort_handle();
        let answer = timeout(patience, asked).await;
        sleep(self.world.latency(10.0)).await;
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                self.world.inner().count("client.lost-its-dispatcher");
                Err(NoAnswer)
            }
            Err(_) => {
                abort.abort();
                self.world.inner().count("client.hung-up");
                Err(NoAnswer)
            }
        }
    }
}
