//! `reseed = "hook"`: the bot's own server reseeds its process, and proves it.

use std::time::Duration;

use callbox_protocol::agent::{BOT_WAKE_PATH, BotAwake, BotWake};
use http::Method;
use tokio::time::timeout;

use crate::loopback;

/// How long the bot may take to reseed itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is kept of the bot's own account of what it reseeded.
const MAX_NAMES: usize = 64;
const MAX_NAME: usize = 100;

/// Asks the bot to reseed. Says what it reseeded, or what is missing.
pub(super) async fn ask(port: u16, wake: &BotWake) -> Result<Vec<String>, String> {
    let body = serde_json::to_vec(wake).unwrap_or_default();
    let asking = loopback::ask(port, Method::POST, BOT_WAKE_PATH, &[], body);
    let answer = match timeout(PATIENCE, asking).await {
        Ok(Ok((200, answer))) => proven(&answer, &wake.generation_id),
        Ok(Ok((status, _))) => Err(format!("answers {status}")),
        Ok(Err(error)) => Err(format!("fails: {error}")),
        Err(_) => Err(format!("does not answer within {} s", PATIENCE.as_secs())),
    };
    answer.map_err(|problem| format!("POST {BOT_WAKE_PATH} {problem}"))
}

/// Whoever did not read the request cannot know its generation.
fn proven(answer: &[u8], generation_id: &str) -> Result<Vec<String>, String> {
    let Ok(awake) = serde_json::from_slice::<BotAwake>(answer) else {
        // Not quoted: an answer can hold anything.
        return Err("answers 200 without the generation_id that it acted on, as JSON".to_owned());
    };
    if awake.generation_id != generation_id {
        return Err("answers for another generation_id than it was asked with".to_owned());
    }
    let mut names = awake.reseeded;
    names.truncate(MAX_NAMES);
    for name in &mut names {
        name.truncate(name.floor_char_boundary(MAX_NAME));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_generation_is_a_proof() {
        let good = br#"{"generation_id":"ab","reseeded":["random"],"more":1}"#;
        assert_eq!(proven(good, "ab"), Ok(vec!["random".to_owned()]));
        assert_eq!(proven(br#"{"generation_id":"ab"}"#, "ab"), Ok(vec![]));
        for bad in ["", "{}", "ok", "<html>", "null", r#"{"generation_id":"AB"}"#] {
            let error = proven(bad.as_bytes(), "ab").expect_err(bad);
            assert!(error.contains("generation_id"), "{error}");
        }
    }

    #[test]
    fn an_account_is_bounded() {
        let names: Vec<_> = (0..1000).map(|_| "é".repeat(1000)).collect();
        let answer = BotAwake { generation_id: "ab".to_owned(), reseeded: names };
        let kept = proven(&serde_json::to_vec(&answer).expect("json"), "ab").expect("good");
        assert_eq!((kept.len(), kept[0].len()), (MAX_NAMES, MAX_NAME));
    }
}
