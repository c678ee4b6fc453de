//! Calls on apps (fly.md section 3.4).

use std::time::Duration;

use reqwest::Method;

use super::Client;
#[cfg(doc)]
use crate::ErrorKind;
use crate::wire::{App, AppCreated, CreateApp};
use crate::{Action, Error};

impl Client {
    /// Makes an app; needs an organisation's token. One that exists is
    /// [`ErrorKind::NameTaken`]. Calls right after it may find no such app, or no right, for a
    /// while: the cookie that comes with it makes that shorter.
    pub async fn create_app(
        &self,
        request: &CreateApp,
        limit: Duration,
    ) -> Result<AppCreated, Error> {
        let call = self.call(Action::CreateApp, Method::POST, &["apps"]);
        self.read(call.json(request)?, limit).await
    }

    /// One app.
    pub async fn app(&self, name: &str, limit: Duration) -> Result<App, Error> {
        self.read(self.call(Action::GetApp, Method::GET, &["apps", name]), limit).await
    }

    /// Deletes an app and all of its machines.
    pub async fn delete_app(&self, name: &str, limit: Duration) -> Result<(), Error> {
        self.done(self.call(Action::DeleteApp, Method::DELETE, &["apps", name]), limit).await
    }
}
