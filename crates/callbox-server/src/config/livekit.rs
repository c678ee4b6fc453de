//! `[livekit]`: rooms at a LiveKit server.

use serde::Deserialize;

use super::secret::SecretSource;

/// Where LiveKit's own tools look for the server.
const ADDRESS: &str = "LIVEKIT_URL";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLivekit {
    url: String,
    api_url: String,
    api_key: SecretSource,
    api_secret: SecretSource,
}

/// Rooms at a LiveKit server.
#[derive(Clone, Debug, PartialEq)]
pub struct LivekitSection {
    /// Where clients and bots enter.
    pub url: String,
    /// Where the dispatcher asks; none: at the same address.
    pub api_url: Option<String>,
    /// Where the project's key is.
    pub api_key: SecretSource,
    /// Where its secret is.
    pub api_secret: SecretSource,
}

/// None where no server is named.
pub(super) fn livekit(raw: RawLivekit) -> Option<LivekitSection> {
    let from_env = || std::env::var(ADDRESS).ok();
    let url = Some(raw.url).filter(|url| !url.is_empty()).or_else(from_env);
    Some(LivekitSection {
        url: url.filter(|url| !url.is_empty())?,
        api_url: Some(raw.api_url).filter(|url| !url.is_empty()),
        api_key: raw.api_key,
        api_secret: raw.api_secret,
    })
}
