//! `dailyRoomProperties` and `dailyMeetingTokenProperties` of a request.
//!
//! What we must be certain of is ours: when a room and a token end, that a room is private, and
//! whose token it is. Of the room's properties all others go on to Daily, which knows them better;
//! of the token's only those whose claims are known, because we sign it ourselves.

use serde_json::{Map, Value, json};

use crate::BadOptions;

pub(super) const ROOM: &str = "dailyRoomProperties";
pub(super) const TOKEN: &str = "dailyMeetingTokenProperties";
/// Under this id the bot is in its room; nobody else may be.
pub(super) const BOT_USER: &str = "callbox-bot";
/// Longest `user_id` that Daily takes.
const LONGEST_USER: usize = 36;

/// What a value must be.
#[derive(Clone, Copy, Debug)]
enum Is {
    Bool,
    Number,
    Text,
    Object,
    TextOrBool,
}

/// Properties of rooms that are commonly set, so that a slip is told before anything is started.
const ROOM_TYPES: [(&str, Is); 17] = [
    ("exp", Is::Number),
    ("nbf", Is::Number),
    ("max_participants", Is::Number),
    ("eject_after_elapsed", Is::Number),
    ("eject_at_room_exp", Is::Bool),
    ("enable_dialout", Is::Bool),
    ("enable_chat", Is::Bool),
    ("enable_prejoin_ui", Is::Bool),
    ("enable_emoji_reactions", Is::Bool),
    ("start_video_off", Is::Bool),
    ("start_audio_off", Is::Bool),
    ("geo", Is::Text),
    ("enable_recording", Is::TextOrBool),
    ("sip", Is::Object),
    ("dialout_config", Is::Object),
    ("permissions", Is::Object),
    ("recordings_bucket", Is::Object),
];

/// Properties of tokens, and what they are called in one (docs: "Self-signing tokens").
const CLAIMS: [(&str, &str, Is); 14] = [
    ("is_owner", "o", Is::Bool),
    ("user_name", "u", Is::Text),
    ("user_id", "ud", Is::Text),
    ("eject_at_token_exp", "ejt", Is::Bool),
    ("eject_after_elapsed", "eje", Is::Number),
    ("exp", "exp", Is::Number),
    ("nbf", "nbf", Is::Number),
    ("enable_screenshare", "ss", Is::Bool),
    ("start_video_off", "vo", Is::Bool),
    ("start_audio_off", "ao", Is::Bool),
    ("enable_recording", "er", Is::TextOrBool),
    ("start_cloud_recording", "sr", Is::Bool),
    ("auto_start_transcription", "ast", Is::Bool),
    ("lang", "uil", Is::Text),
];

/// What is kept with the session; null where nothing is asked.
pub(super) fn check(request: &Map<String, Value>) -> Result<Value, BadOptions> {
    let (room, token) = (object(request, ROOM)?, object(request, TOKEN)?);
    for (name, is) in ROOM_TYPES {
        check_type(&room, ROOM, name, is)?;
    }
    for name in token.keys() {
        // It is always this session's.
        if name == "room_name" {
            continue;
        }
        let Some((_, _, is)) = CLAIMS.iter().find(|(property, ..)| property == name) else {
            let problem = "it cannot be put into a token that is signed here";
            return Err(BadOptions::new(format!("{TOKEN}.{name}"), problem));
        };
        check_type(&token, TOKEN, name, *is)?;
    }
    if let Some(user) = token.get("user_id").and_then(Value::as_str) {
        let bad = |problem: &str| Err(BadOptions::new(format!("{TOKEN}.user_id"), problem));
        if user == BOT_USER {
            return bad("this is the bot's");
        }
        if user.chars().count() > LONGEST_USER {
            return bad("it has more than 36 characters");
        }
    }
    let mut kept = Map::new();
    for (key, value) in [("room", room), ("token", token)] {
        if !value.is_empty() {
            kept.insert(key.into(), Value::Object(value));
        }
    }
    Ok(if kept.is_empty() { Value::Null } else { Value::Object(kept) })
}

/// The properties of a room that ends at `exp` (Unix seconds) at the latest.
pub(super) fn room(options: &Value, exp: i64, geo: Option<&str>) -> Value {
    let mut properties = options["room"].as_object().cloned().unwrap_or_default();
    properties.insert("exp".into(), json!(sooner(properties.get("exp"), exp)));
    properties.insert("eject_at_room_exp".into(), json!(true));
    if let Some(geo) = geo {
        properties.entry("geo").or_insert_with(|| json!(geo));
    }
    Value::Object(properties)
}

/// What the client's token claims beside whose it is; ends at `exp` at the latest.
pub(super) fn claims(options: &Value, exp: i64) -> Map<String, Value> {
    let asked = options["token"].as_object();
    let named = |(property, claim, _): &(&str, &str, Is)| {
        Some(((*claim).to_owned(), asked?.get(*property)?.clone()))
    };
    let mut claims: Map<String, Value> = CLAIMS.iter().filter_map(named).collect();
    claims.insert("exp".into(), json!(sooner(claims.get("exp"), exp)));
    claims
}

fn sooner(asked: Option<&Value>, exp: i64) -> i64 {
    asked.and_then(Value::as_f64).map_or(exp, |asked| (asked as i64).min(exp))
}

fn object(request: &Map<String, Value>, key: &str) -> Result<Map<String, Value>, BadOptions> {
    match request.get(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(properties)) => {
            // Clients write what they do not set as null.
            let set = properties.iter().filter(|(_, value)| !value.is_null());
            Ok(set.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        Some(_) => Err(BadOptions::new(key, "it is no object")),
    }
}

fn check_type(of: &Map<String, Value>, key: &str, name: &str, is: Is) -> Result<(), BadOptions> {
    let Some(value) = of.get(name) else { return Ok(()) };
    let (fits, what) = match is {
        Is::Bool => (value.is_boolean(), "true or false"),
        Is::Number => (value.is_number(), "a number"),
        Is::Text => (value.is_string(), "a text"),
        Is::Object => (value.is_object(), "an object"),
        Is::TextOrBool => (value.is_string() || value.is_boolean(), "a text"),
    };
    match fits {
        true => Ok(()),
        false => Err(BadOptions::new(format!("{key}.{name}"), format!("it must be {what}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(request: Value) -> Result<Value, String> {
        check(request.as_object().expect("an object")).map_err(|bad| bad.to_string())
    }

    #[test]
    fn what_is_asked_is_kept_and_what_cannot_be_is_refused_by_name() {
        assert_eq!(checked(json!({ "body": 1 })), Ok(Value::Null));
        let asked = json!({ (ROOM): { "enable_chat": true, "new_thing": 7, "exp": null },
                            (TOKEN): { "user_name": "Ada", "room_name": "*" } });
        let kept = checked(asked).expect("it can be");
        assert_eq!(kept["room"], json!({ "enable_chat": true, "new_thing": 7 }));
        for (asked, key) in [
            (json!({ (ROOM): { "exp": "soon" } }), "dailyRoomProperties.exp: "),
            (json!({ (ROOM): 3 }), "dailyRoomProperties: "),
            (json!({ (TOKEN): { "knocking": 1 } }), "dailyMeetingTokenProperties.knocking: "),
            (json!({ (TOKEN): { "is_owner": 1 } }), "dailyMeetingTokenProperties.is_owner: "),
            (json!({ (TOKEN): { "user_id": BOT_USER } }), "dailyMeetingTokenProperties.user_id: "),
        ] {
            let why = checked(asked.clone()).expect_err("it cannot be");
            assert!(why.starts_with(key), "{asked}: {why}");
        }
    }

    #[test]
    fn nobody_stays_longer_than_the_session() {
        let kept = checked(json!({ (ROOM): { "exp": 900, "eject_at_room_exp": false },
                                   (TOKEN): { "exp": 99_999, "is_owner": true } }));
        let kept = kept.expect("it can be");
        assert_eq!(
            room(&kept, 1000, Some("eu-central-1")),
            json!({ "exp": 900, "eject_at_room_exp": true, "geo": "eu-central-1" })
        );
        assert_eq!(Value::Object(claims(&kept, 1000)), json!({ "exp": 1000, "o": true }));
    }
}
