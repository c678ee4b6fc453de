//! The lines of QMP as types.

use serde::Deserialize;
use serde_json::Value;

use super::QmpError;

/// Something that happened in QEMU.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// QEMU's name for it, upper case (`RESUME`, `STOP`, `MIGRATION`).
    pub name: String,
    /// Whatever belongs to it; `null` if nothing does.
    pub data: Value,
}

/// One line from QEMU.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    Greeting,
    Return(Value),
    Refused { class: String, description: String },
    Event(Event),
}

/// The four shapes a line can have, told apart by which key is there.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    // A `return` of null would look absent; QEMU never sends one.
    r#return: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

impl Incoming {
    pub(super) fn parse(line: &[u8]) -> Result<Incoming, QmpError> {
        let line: Line = serde_json::from_slice(line)
            .map_err(|error| QmpError::Protocol(format!("a line is not json: {error}")))?;
        match line {
            Line { greeting: Some(_), .. } => Ok(Incoming::Greeting),
            Line { r#return: Some(value), .. } => Ok(Incoming::Return(value)),
            Line { error: Some(refusal), .. } => {
                Ok(Incoming::Refused { class: refusal.class, description: refusal.desc })
            }
            Line { event: Some(name), data, .. } => Ok(Incoming::Event(Event { name, data })),
            Line { .. } => Err(QmpError::Protocol("a line is neither answer nor event".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_of_line_is_told_apart() {
        let parse = |text: &str| Incoming::parse(text.as_bytes());
        assert_eq!(parse(r#"{"QMP":{"version":{}}}"#).expect("greeting"), Incoming::Greeting);
        assert_eq!(
            parse(r#"{"return":{"status":"running"}}"#).expect("return"),
            Incoming::Return(serde_json::json!({"status": "running"}))
        );
        assert_eq!(
            parse(r#"{"error":{"class":"GenericError","desc":"no"}}"#).expect("error"),
            Incoming::Refused { class: "GenericError".into(), description: "no".into() }
        );
        assert_eq!(
            parse(r#"{"timestamp":{"seconds":1},"event":"RESUME"}"#).expect("event"),
            Incoming::Event(Event { name: "RESUME".into(), data: Value::Null })
        );
        assert!(matches!(parse("{}"), Err(QmpError::Protocol(_))));
        assert!(matches!(parse("rubbish"), Err(QmpError::Protocol(_))));
    }
}
