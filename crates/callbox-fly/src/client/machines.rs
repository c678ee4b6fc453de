//! Calls on machines (fly.md sections 2, 3.4).

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::Client;
#[cfg(doc)]
use crate::ErrorKind;
use crate::wire::{
    CreateMachine, Event, GoDuration, Machine, MetadataValue, Started, State, StopRequest,
    UpdateMachine,
};
use crate::{Action, Error};

/// Which machines a list holds. The default is all that are not destroyed, with everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Without configuration, checks and events. Whether metadata is left then is not certain,
    /// so whoever needs it filters by it.
    pub summary: bool,
    /// In this region.
    pub region: Option<String>,
    /// In one of these states; all when empty.
    pub states: Vec<State>,
    /// With all of these values in their metadata.
    pub metadata: BTreeMap<String, String>,
    /// Destroyed ones, too.
    pub include_deleted: bool,
}

/// How a machine is stopped, where not as its configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// Such as `SIGTERM`.
    pub signal: Option<String>,
    /// Grace until it is killed.
    pub timeout: Option<Duration>,
}

impl Client {
    /// Makes a machine. Repeated with the same name it is refused with
    /// [`ErrorKind::NameTaken`], which names the one that exists.
    pub async fn create(
        &self,
        app: &str,
        request: &CreateMachine,
        limit: Duration,
    ) -> Result<Machine, Error> {
        let call = self.call(Action::Create, Method::POST, &["apps", app, "machines"]);
        self.read(call.json(request)?, limit).await
    }

    /// One machine.
    pub async fn get(&self, app: &str, id: &str, limit: Duration) -> Result<Machine, Error> {
        self.read(self.on(Action::Get, Method::GET, app, id, &[]), limit).await
    }

    /// The machines of an app. There are no pages.
    ///
    /// An entry without an id makes the whole list [`ErrorKind::AnswerLost`]: whoever lists
    /// concludes from what is not there, too.
    pub async fn list(
        &self,
        app: &str,
        filter: &ListFilter,
        limit: Duration,
    ) -> Result<Vec<Machine>, Error> {
        let mut call = self.call(Action::List, Method::GET, &["apps", app, "machines"]);
        if filter.summary {
            call = call.query("summary", "true");
        }
        if filter.include_deleted {
            call = call.query("include_deleted", "true");
        }
        if let Some(region) = &filter.region {
            call = call.query("region", region);
        }
        if !filter.states.is_empty() {
            let states: Vec<&str> = filter.states.iter().map(State::as_str).collect();
            call = call.query("state", &states.join(","));
        }
        for (key, value) in &filter.metadata {
            call = call.query(&format!("metadata.{key}"), value);
        }
        // Go writes `null` for an empty list.
        let list: Option<Vec<Machine>> = self.read(call, limit).await?;
        Ok(list.unwrap_or_default())
    }

    /// Gives a machine another configuration, whole. A running one reboots, about 20 s.
    pub async fn update(
        &self,
        app: &str,
        id: &str,
        request: &UpdateMachine,
        nonce: Option<&str>,
        limit: Duration,
    ) -> Result<Machine, Error> {
        let call = self.on(Action::Update, Method::POST, app, id, &[]);
        self.read(call.header(super::leases::NONCE, nonce).json(request)?, limit).await
    }

    /// Starts a stopped or suspended machine. One in `created` is refused with
    /// [`ErrorKind::WrongState`].
    pub async fn start(&self, app: &str, id: &str, limit: Duration) -> Result<Started, Error> {
        self.read(self.on(Action::Start, Method::POST, app, id, &["start"]), limit).await
    }

    /// Stops a machine; a stopped one is fine, a suspended one loses its memory.
    pub async fn stop(
        &self,
        app: &str,
        id: &str,
        how: &Stop,
        limit: Duration,
    ) -> Result<(), Error> {
        let body = StopRequest { signal: how.signal.clone(), timeout: how.timeout.map(GoDuration) };
        let call = self.on(Action::Stop, Method::POST, app, id, &["stop"]);
        self.done(call.json(&body)?, limit).await
    }

    /// Suspends a running machine. With much memory it takes over 15 s (fly.md section 4).
    pub async fn suspend(&self, app: &str, id: &str, limit: Duration) -> Result<(), Error> {
        self.done(self.on(Action::Suspend, Method::POST, app, id, &["suspend"]), limit).await
    }

    /// Destroys a machine, a running one only with `force`.
    ///
    /// One that does not exist is [`ErrorKind::NotFound`]: for whoever ends something, done.
    pub async fn destroy(
        &self,
        app: &str,
        id: &str,
        force: bool,
        limit: Duration,
    ) -> Result<(), Error> {
        let call = self.on(Action::Destroy, Method::DELETE, app, id, &[]);
        let call = if force { call.query("force", "true") } else { call };
        self.done(call, limit).await
    }

    /// A machine's metadata.
    pub async fn metadata(
        &self,
        app: &str,
        id: &str,
        limit: Duration,
    ) -> Result<BTreeMap<String, String>, Error> {
        let call = self.on(Action::GetMetadata, Method::GET, app, id, &["metadata"]);
        let found: Option<BTreeMap<String, Value>> = self.read(call, limit).await?;
        let text = |value: Value| value.as_str().map(str::to_owned);
        let found = found.unwrap_or_default().into_iter();
        Ok(found.filter_map(|(key, value)| Some((key, text(value)?))).collect())
    }

    /// Sets one value of a machine's metadata. Makes no new version of it.
    pub async fn set_metadata(
        &self,
        app: &str,
        id: &str,
        key: &str,
        value: &str,
        limit: Duration,
    ) -> Result<(), Error> {
        let call = self.on(Action::SetMetadata, Method::POST, app, id, &["metadata", key]);
        let body = MetadataValue { value: value.to_owned() };
        self.done(call.json(&body)?, limit).await
    }

    /// Takes one value out of a machine's metadata.
    pub async fn remove_metadata(
        &self,
        app: &str,
        id: &str,
        key: &str,
        limit: Duration,
    ) -> Result<(), Error> {
        let path = ["metadata", key];
        let call = self.on(Action::SetMetadata, Method::DELETE, app, id, &path);
        self.done(call, limit).await
    }

    /// What became of a machine, newest first; at most [`crate::limits::EVENTS`].
    pub async fn events(
        &self,
        app: &str,
        id: &str,
        most: Option<u32>,
        limit: Duration,
    ) -> Result<Vec<Event>, Error> {
        let mut call = self.on(Action::Events, Method::GET, app, id, &["events"]);
        if let Some(most) = most {
            call = call.query("limit", &most.to_string());
        }
        let found: Option<Vec<Event>> = self.read(call, limit).await?;
        Ok(found.unwrap_or_default())
    }

    /// A call on one machine.
    pub(super) fn on(
        &self,
        action: Action,
        method: Method,
        app: &str,
        id: &str,
        rest: &[&str],
    ) -> super::send::Call {
        let path = [&["apps", app, "machines", id], rest].concat();
        self.call(action, method, &path)
    }
}
