//! `[daily]`: rooms at Daily.

use serde::Deserialize;

use super::{ConfigError, secret::SecretSource, wrong};

/// Where Pipecat's own runner looks for another address.
const ADDRESS: &str = "DAILY_API_URL";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDaily {
    api_key: SecretSource,
    api_url: String,
    domain: String,
    domain_id: String,
    geo: String,
    delete_rooms: bool,
    /// Not in the defaults: without it, no webhooks are taken.
    #[serde(default)]
    webhook_secret: Option<SecretSource>,
}

/// Rooms at Daily.
#[derive(Clone, Debug, PartialEq)]
pub struct DailySection {
    /// Where the API key is.
    pub api_key: SecretSource,
    /// Where the API is; none: where everybody finds it.
    pub api_url: Option<String>,
    /// `<domain>.daily.co`; none: Daily is asked.
    pub domain: Option<String>,
    /// Its id; none: Daily is asked.
    pub domain_id: Option<String>,
    /// Where rooms' servers are; none: Daily decides.
    pub geo: Option<String>,
    /// Whether rooms are removed when their sessions end.
    pub delete_rooms: bool,
    /// Where the secret is that webhooks are signed with.
    pub webhook_secret: Option<SecretSource>,
}

pub(super) fn daily(raw: RawDaily) -> Result<DailySection, ConfigError> {
    let set = |text: String| Some(text).filter(|text| !text.is_empty());
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !raw.domain.chars().all(legal) {
        let problem = format!("{:?} is no domain's name: of x.daily.co it is x", raw.domain);
        return Err(wrong("daily.domain", problem));
    }
    let api_url = set(raw.api_url).or_else(|| std::env::var(ADDRESS).ok().and_then(set));
    if let Some(url) = &api_url
        && !(url.starts_with("https://") || url.starts_with("http://"))
    {
        let problem = format!("{url:?} does not begin with http:// or https://");
        return Err(wrong("daily.api_url", problem));
    }
    Ok(DailySection {
        api_key: raw.api_key,
        api_url,
        domain: set(raw.domain),
        domain_id: set(raw.domain_id),
        geo: set(raw.geo),
        delete_rooms: raw.delete_rooms,
        webhook_secret: raw.webhook_secret,
    })
}
