//! The calls of the API by name: the unit of rate limits, counts and messages.

use std::fmt;

/// One kind of call, as rate limits tell them apart (fly.md section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// `POST /apps`
    CreateApp,
    /// `GET /apps/{app}`
    GetApp,
    /// `GET /apps`
    ListApps,
    /// `DELETE /apps/{app}`
    DeleteApp,
    /// `POST /apps/{app}/machines`
    Create,
    /// `GET /apps/{app}/machines`
    List,
    /// `GET /orgs/{org}/machines`
    ListOrg,
    /// `GET …/machines/{id}`
    Get,
    /// `POST …/machines/{id}`
    Update,
    /// `GET …/wait`
    Wait,
    /// `POST …/start`
    Start,
    /// `POST …/stop`
    Stop,
    /// `POST …/suspend`
    Suspend,
    /// `POST …/restart`
    Restart,
    /// `POST …/signal`
    Signal,
    /// `DELETE …/machines/{id}`
    Destroy,
    /// `POST …/cordon` and `…/uncordon`
    Cordon,
    /// `POST …/exec`
    Exec,
    /// `GET …/events`
    Events,
    /// `GET …/metadata` and `…/metadata/{key}`
    GetMetadata,
    /// All calls that change metadata
    SetMetadata,
    /// `GET …/lease`
    GetLease,
    /// `POST …/lease`
    AcquireLease,
    /// `DELETE …/lease`
    ReleaseLease,
    /// `GET /platform/regions`
    Regions,
    /// `POST /platform/placements`
    Placements,
}

impl Action {
    /// Every action, in the order in which reports name them.
    pub const ALL: [Action; 26] = [
        Action::CreateApp,
        Action::GetApp,
        Action::ListApps,
        Action::DeleteApp,
        Action::Create,
        Action::List,
        Action::ListOrg,
        Action::Get,
        Action::Update,
        Action::Wait,
        Action::Start,
        Action::Stop,
        Action::Suspend,
        Action::Restart,
        Action::Signal,
        Action::Destroy,
        Action::Cordon,
        Action::Exec,
        Action::Events,
        Action::GetMetadata,
        Action::SetMetadata,
        Action::GetLease,
        Action::AcquireLease,
        Action::ReleaseLease,
        Action::Regions,
        Action::Placements,
    ];

    /// A stable name for logs, metrics and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Action::CreateApp => "create_app",
            Action::GetApp => "get_app",
            Action::ListApps => "list_apps",
            Action::DeleteApp => "delete_app",
            Action::Create => "create",
            Action::List => "list",
            Action::ListOrg => "list_org",
            Action::Get => "get",
            Action::Update => "update",
            Action::Wait => "wait",
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Suspend => "suspend",
            Action::Restart => "restart",
            Action::Signal => "signal",
            Action::Destroy => "destroy",
            Action::Cordon => "cordon",
            Action::Exec => "exec",
            Action::Events => "events",
            Action::GetMetadata => "get_metadata",
            Action::SetMetadata => "set_metadata",
            Action::GetLease => "get_lease",
            Action::AcquireLease => "acquire_lease",
            Action::ReleaseLease => "release_lease",
            Action::Regions => "regions",
            Action::Placements => "placements",
        }
    }

    /// The action of that [`name`](Action::name).
    pub fn named(name: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.name() == name)
    }

    /// Whether it only asks: then nothing can have happened, whatever became of the answer.
    pub fn only_asks(self) -> bool {
        match self {
            Action::GetApp
            | Action::ListApps
            | Action::List
            | Action::ListOrg
            | Action::Get
            | Action::Wait
            | Action::Events
            | Action::GetMetadata
            | Action::GetLease
            | Action::Regions
            | Action::Placements => true,
            Action::CreateApp
            | Action::DeleteApp
            | Action::Create
            | Action::Update
            | Action::Start
            | Action::Stop
            | Action::Suspend
            | Action::Restart
            | Action::Signal
            | Action::Destroy
            | Action::Cordon
            | Action::Exec
            | Action::SetMetadata
            | Action::AcquireLease
            | Action::ReleaseLease => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().replace('_', " "))
    }
}
