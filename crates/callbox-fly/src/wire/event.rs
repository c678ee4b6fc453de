//! What became of a machine (fly.md section 2.3).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lenient::or_default;

/// One event of a machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Event {
    /// A ULID.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Seen: launch, start, exit, restart, stop, destroy.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: String,
    /// The state that the machine had then.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// `user`, or `flyd` where it happened by itself.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Milliseconds since 1970.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// Details, by type.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
}

impl Event {
    /// How the main process ended, if this event says so: it stands at `request.exit_event` or
    /// at `request.MonitorEvent.exit_event`.
    pub fn exit(&self) -> Option<ExitEvent> {
        let request = self.request.as_ref()?;
        let found = request.get("exit_event").filter(|exit| exit.is_object());
        let found = found.or_else(|| request.get("MonitorEvent")?.get("exit_event"))?;
        serde_json::from_value(found.clone()).ok()
    }
}

/// How a main process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ExitEvent {
    /// Of the VM.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Of the program in it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub guest_exit_code: Option<i32>,
    /// That ended the program; 0 or -1 for none.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub guest_signal: Option<i32>,
    /// That ended the VM; 0 or -1 for none.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// It needed more memory than there was.
    #[serde(default, deserialize_with = "or_default")]
    pub oom_killed: bool,
    /// Somebody asked for it.
    #[serde(default, deserialize_with = "or_default")]
    pub requested_stop: bool,
    /// It will be run again.
    #[serde(default, deserialize_with = "or_default")]
    pub restarting: bool,
    /// RFC 3339.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub exited_at: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_exit_stands_at_either_place() {
        let exit = json!({"exit_code": 137, "oom_killed": true, "signal": -1});
        for request in [json!({"exit_event": exit}), json!({"MonitorEvent": {"exit_event": exit}})]
        {
            let event: Event =
                serde_json::from_value(json!({"type": "exit", "request": request})).expect("event");
            let exit = event.exit().expect("an exit");
            assert_eq!((exit.exit_code, exit.oom_killed), (Some(137), true));
        }
        for request in [json!(null), json!({}), json!({"exit_event": 7}), json!([1])] {
            let event: Event =
                serde_json::from_value(json!({"type": "exit", "request": request})).expect("event");
            assert_eq!(event.exit(), None);
        }
    }
}
