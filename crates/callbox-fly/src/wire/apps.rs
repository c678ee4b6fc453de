//! Apps (fly.md section 3.4): what machines belong to, and what rates are counted for.

use serde::{Deserialize, Serialize};

use super::lenient::{or_default, readable};

/// Body of an app's creation. The specification and fly-go say `name`, the docs `app_name`;
/// we write `name` and read both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct CreateApp {
    /// Unique in all of Fly.
    #[serde(default, alias = "app_name", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The organisation, such as `personal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org_slug: Option<String>,
    /// A network of its own: the only wall between apps (fly.md section 7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// Answer of an app's creation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct AppCreated {
    /// Of the app.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Milliseconds since 1970.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<i64>,
}

/// An app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct App {
    /// Of the app.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Such as `deployed`, `pending`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Whose it is.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub organization: Option<Organization>,
    /// Its network.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// How many machines it has.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub machine_count: Option<u32>,
}

/// An organisation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Organization {
    /// For people.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For calls.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
}

/// Answer of a list of apps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct AppList {
    /// The apps.
    #[serde(default, deserialize_with = "readable")]
    pub apps: Vec<App>,
    /// How many there are.
    #[serde(default, deserialize_with = "or_default")]
    pub total_apps: u32,
}
