//! What relay and dispatcher say to each other. A relay may be older than its dispatcher, so
//! there are only additions.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{client::Close, end::End};

/// What a relay is started with, beside the client's connection and its own socket.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The session, for the bot.
    pub session: String,
    /// The bot's port in the machine.
    pub port: u16,
    /// The `body` of the start request, for the bot.
    pub body: Value,
    /// What may be held for the bot, in bytes.
    pub max_held_bytes: usize,
    /// How long to go on without a dispatcher, in milliseconds.
    pub alone_ms: u64,
    /// What was read of the client's connection already, as base64.
    pub first: String,
    /// Whether another bot may go on with the call when one fails.
    #[serde(default)]
    pub restarts: bool,
}

/// What the dispatcher wants, one a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "kebab-case")]
pub(super) enum Wish {
    /// The bot is ready: this is the machine's media port. Said again for every fresh machine.
    Carry {
        /// A unix socket.
        media: PathBuf,
        /// Which machine of the session it is. A dispatcher that does not say so does not know
        /// that a call can go on with another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        incarnation: Option<u32>,
    },
    /// The session is over: say so to the client, and end. After the call's own end this is the
    /// sign that it was heard.
    Close(Close),
}

/// How the call stands, one a line. The client is in as soon as there is a first line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    /// The bot was heard.
    #[serde(default)]
    pub audible: bool,
    /// The call's end, if client or bot ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// The last bot that failed, if the call waits, or has waited, for another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broke: Option<Broke>,
}

/// A bot that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Broke {
    /// Which machine of the session it was in.
    pub incarnation: u32,
    /// How it was seen.
    pub end: End,
}

/// As one line.
pub(super) fn line(words: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(words).expect("plain values are always json");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_what_older_relays_know() {
        let wishes = [
            (
                Wish::Carry { media: "/run/m.sock".into(), incarnation: None },
                r#"{"wish":"carry","media":"/run/m.sock"}"#,
            ),
            (
                Wish::Carry { media: "/run/m.sock".into(), incarnation: Some(2) },
                r#"{"wish":"carry","media":"/run/m.sock","incarnation":2}"#,
            ),
            (
                Wish::Close(Close { code: 1000, reason: "stopped".into() }),
                r#"{"wish":"close","code":1000,"reason":"stopped"}"#,
            ),
        ];
        for (wish, text) in wishes {
            assert_eq!(line(&wish), format!("{text}\n").into_bytes());
            assert_eq!(serde_json::from_str::<Wish>(text).expect("known"), wish);
        }
        let closed = End::BotClosed { code: 4000, reason: "x".into() };
        let broke = Some(Broke { incarnation: 1, end: closed.clone() });
        let end = Some(closed);
        let standings = [
            (Standing::default(), r#"{"audible":false}"#),
            (
                Standing { audible: true, end, broke: None },
                r#"{"audible":true,"end":{"how":"bot-closed","code":4000,"reason":"x"}}"#,
            ),
            (
                Standing { audible: true, end: None, broke },
                r#"{"audible":true,"broke":{"incarnation":1,"end":{"how":"bot-closed","code":4000,"reason":"x"}}}"#,
            ),
        ];
        for (standing, text) in standings {
            assert_eq!(line(&standing), format!("{text}\n").into_bytes());
            assert_eq!(serde_json::from_str::<Standing>(text).expect("known"), standing);
        }
        let order =
            r#"{"session":"s","port":1,"body":null,"max_held_bytes":1,"alone_ms":1,"first":""}"#;
        assert!(!serde_json::from_str::<Order>(order).expect("of an older dispatcher").restarts);
    }
}
