//! From what was typed to a session: a whole id, or the beginning of one.

use callbox_protocol::api::Session;

use crate::api_client::ApiClient;
use crate::error::CliError;

/// Length of a uuid.
const WHOLE: usize = 36;
const PAGE: &str = "200";
/// So many pages are searched for a prefix.
const PAGES: usize = 25;

/// The session that `id` names.
pub async fn session(client: &ApiClient, id: &str) -> Result<Session, CliError> {
    let id = id.to_ascii_lowercase();
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        return Err(CliError::Usage(format!(
            "{id:?} is not a session id or the beginning of one; `callbox ps` lists them"
        )));
    }
    if id.len() >= WHOLE {
        return match client.session(&id).await {
            Err(error) if error.is_not_found() => {
                Err(CliError::Usage(format!("there is no session {id:?}")))
            }
            answer => Ok(answer?),
        };
    }
    by_prefix(client, &id).await
}

async fn by_prefix(client: &ApiClient, prefix: &str) -> Result<Session, CliError> {
    let mut found: Vec<Session> = Vec::new();
    let mut before: Option<String> = None;
    for _ in 0..PAGES {
        let mut query = vec![("all", "true"), ("limit", PAGE)];
        query.extend(before.as_deref().map(|before| ("before", before)));
        let page = client.sessions(&query).await?;
        found.extend(page.sessions.into_iter().filter(|session| session.id.starts_with(prefix)));
        if found.len() > 1 || page.next.is_none() {
            break;
        }
        before = page.next;
    }
    match (found.pop(), found.pop()) {
        (Some(session), None) => Ok(session),
        (Some(one), Some(other)) => Err(CliError::Usage(format!(
            "{prefix:?} is the beginning of more than one session id, for example {} and {}",
            one.id, other.id
        ))),
        (None, _) => Err(CliError::Usage(format!(
            "no session's id begins with {prefix:?}; `callbox ps --all` lists them"
        ))),
    }
}
