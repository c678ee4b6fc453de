//! Reading a rule: what it does and when stand side by side in one object, and a misspelled word
//! must not become a trouble that strikes everything.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Effect, Rule};

/// When a rule strikes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    action: Option<String>,
    app: Option<String>,
    region: Option<String>,
    name: Option<String>,
    probability: Option<f64>,
    count: Option<u64>,
}

const WHEN: [&str; 6] = ["action", "app", "region", "name", "probability", "count"];

impl TryFrom<Value> for Rule {
    type Error = String;

    fn try_from(value: Value) -> Result<Rule, String> {
        let Value::Object(fields) = value else { return Err("a trouble is an object".into()) };
        let (when, what): (Map<_, _>, Map<_, _>) =
            fields.into_iter().partition(|(name, _)| WHEN.contains(&name.as_str()));
        let names: Vec<String> = what.keys().cloned().collect();
        let read = |error: serde_json::Error| error.to_string();
        let effect: Effect = serde_json::from_value(what.into()).map_err(read)?;
        // Serde passes over fields that a variant does not have.
        let written = serde_json::to_value(&effect).map_err(read)?;
        if let Some(unknown) = names.iter().find(|name| written.get(name.as_str()).is_none()) {
            return Err(format!("unknown field {unknown:?}"));
        }
        let when: When = serde_json::from_value(when.into()).map_err(read)?;
        Ok(Rule {
            effect,
            action: when.action,
            app: when.app,
            region: when.region,
            name: when.name,
            probability: when.probability.unwrap_or(1.0),
            count: when.count,
        })
    }
}
