//! Where each value comes from: embedded defaults, the file, the environment, in this order.

use std::path::Path;

use figment::{
    Figment, Profile,
    providers::{Env, Format as _, Serialized, Toml},
    value::{Dict, Value},
};

use super::{Config, ConfigError, DEFAULTS, raw::Raw};
use crate::store::shown;

/// A configuration and where its values come from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Checked and ready.
    pub config: Config,
    figment: Figment,
}

/// One value of the effective configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    /// Dotted path.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// `default`, `environment`, or the file's path.
    pub source: String,
}

/// The bot that is there when nobody configured one.
const DEMO_BOT: &str = "[bots.parrot]\nimage = \"parrot\"\n";

/// Reads the configuration: `file` must exist if it is named.
///
/// # Errors
/// The first thing that is wrong, with its key and where it was written.
pub fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
    let mut said = Figment::new().select(Profile::Default);
    if let Some(path) = file {
        if !path.is_file() {
            return Err(ConfigError::Unreadable(format!("there is no file {}", path.display())));
        }
        said = said.merge(Toml::file_exact(path));
    }
    said = said.merge(
        // CALLBOX_URL and CALLBOX_KEY are the command line's own, CALLBOX_TEST_… the tests'.
        Env::prefixed("CALLBOX_")
            .ignore(&["url", "key", "agent", "config"])
            .filter(|key| !key.starts_with("test_") && !key.starts_with("skip_"))
            .split("__"),
    );
    let defaults = Toml::string(&defaults_beside(&said));
    let mut figment = Figment::from(defaults).select(Profile::Default).merge(said);
    if figment.find_value("bots").is_err() {
        figment = figment.merge(Toml::string(DEMO_BOT));
    }
    let figment = with_bot_defaults(figment)?;
    let raw: Raw = figment.extract().map_err(|error| ConfigError::Unreadable(explain(&error)))?;
    Ok(Loaded { config: Config::from_raw(raw)?, figment })
}

/// The defaults, without the places of secrets that were said to be elsewhere: of two places merged
/// into one, nobody could say which counts.
fn defaults_beside(said: &Figment) -> String {
    let mut defaults: toml::Table = DEFAULTS.parse().expect("our own file is TOML");
    for (section, values) in &mut defaults {
        let Some(values) = values.as_table_mut() else { continue };
        values.retain(|key, value| {
            let secret = value.as_table().is_some_and(|place| place.keys().eq(["env"]));
            !secret || said.find_value(&format!("{section}.{key}")).is_err()
        });
    }
    defaults.to_string()
}

/// Puts `[bot_defaults]` under every bot. Values keep the source that they had there.
fn with_bot_defaults(figment: Figment) -> Result<Figment, ConfigError> {
    let unreadable = |error: figment::Error| ConfigError::Unreadable(explain(&error));
    let defaults: Dict = figment.extract_inner("bot_defaults").map_err(unreadable)?;
    let bots: Dict = figment.extract_inner("bots").map_err(unreadable)?;
    let mut merged = figment;
    for name in bots.keys() {
        let under = Serialized::from(&defaults, Profile::Default).key(&format!("bots.{name}"));
        merged = merged.join(under);
    }
    Ok(merged)
}

/// figment's own words name the key and the source; more than one problem comes as a list.
fn explain(error: &figment::Error) -> String {
    let all: Vec<String> = error.clone().into_iter().map(|error| error.to_string()).collect();
    all.join("; ")
}

impl Loaded {
    /// Every effective value with its source, sorted by key.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Ok(value) = self.figment.find_value("") {
            self.walk(String::new(), &value, &mut lines);
        }
        lines
    }

    fn walk(&self, key: String, value: &Value, lines: &mut Vec<Line>) {
        if let Value::Dict(_, dict) = value
            && !key.contains(".secrets.")
        {
            for (name, value) in dict {
                let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                self.walk(path, value, lines);
            }
            return;
        }
        let text = match value.as_str() {
            // It may hold a password.
            Some(address) if key == "store" => toml::Value::from(shown(address)).to_string(),
            _ => toml::Value::try_from(value).map_or_else(|_| "?".into(), |v| v.to_string()),
        };
        lines.push(Line { value: text, source: self.source(&key), key });
    }

    fn source(&self, key: &str) -> String {
        let Some(metadata) = self.figment.find_metadata(key) else { return "default".into() };
        match &metadata.source {
            Some(figment::Source::File(path)) => path.display().to_string(),
            _ if metadata.name.contains("environment") => "environment".into(),
            _ => "default".into(),
        }
    }
}
