//! A client of the API: one method per call.
//!
//! Every call takes the caller's own time limit, for the whole of it; none is repeated here,
//! because only the caller knows what may be repeated ([`crate::Error::happened`]).

mod apps;
mod leases;
mod machines;
mod send;
mod wait;

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;

pub use self::machines::{ListFilter, Stop};
pub use self::wait::{Reached, Wait};
use crate::Token;

/// Where everybody reaches the API (fly.md section 1).
pub const BASE_URL: &str = "https://api.machines.dev";
/// Where machines and WireGuard peers of an organisation reach it.
pub const PRIVATE_BASE_URL: &str = "http://_api.internal:4280";

/// A client of one account. Cheap to clone; clones share connections and cookies.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    authorization: Option<HeaderValue>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{url:?} is no http or https address of a Machines API")]
    Address {
        /// As it was given.
        url: String,
    },
    /// The token holds something that no header can.
    #[error("the token holds characters that cannot be sent")]
    Token,
    /// The HTTP client could not be made.
    #[error("cannot prepare requests")]
    Http(#[source] reqwest::Error),
}

impl Client {
    /// A client of the API at `base`, with or without `/v1` at its end, as `FLY_API_HOST` and
    /// `FLY_FLAPS_BASE_URL` have it. Asks nothing of anybody.
    ///
    /// A token that is empty sends no `Authorization`.
    pub fn new(base: &str, token: &Token) -> Result<Client, ClientError> {
        let base = parse_base(base)?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("callbox/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            // A redirect would send the token elsewhere, or make a GET of a POST.
            .redirect(Policy::none())
            .cookie_store(true);
        if let Some(tls) = crate::tls::config() {
            http = http.tls_backend_preconfigured(tls);
        }
        if is_near(&base) {
            // A proxy from the environment reaches neither loopback nor the private network.
            http = http.no_proxy();
        }
        let http = http.build().map_err(ClientError::Http)?;
        let authorization = match token.is_empty() {
            true => None,
            false => {
                let mut value = HeaderValue::from_str(&token.authorization())
                    .map_err(|_| ClientError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Client { http, base, authorization })
    }

    /// The address, without `/v1`.
    pub fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base()).finish_non_exhaustive()
    }
}

fn parse_base(text: &str) -> Result<Url, ClientError> {
    let wrong = || ClientError::Address { url: text.to_owned() };
    let bare = text.trim().trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").unwrap_or(bare);
    let url = Url::parse(bare).map_err(|_| wrong())?;
    let fine = matches!(url.scheme(), "http" | "https") && url.has_host();
    // Names and passwords in an address end in logs; a query would be dropped silently.
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if fine && plain { Ok(url) } else { Err(wrong()) }
}

fn is_near(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.ends_with(".internal")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_with_and_without_v1() {
        for (given, base) in [
            ("https://api.machines.dev", BASE_URL),
            ("https://api.machines.dev/", BASE_URL),
            ("https://api.machines.dev/v1", BASE_URL),
            (" https://api.machines.dev/v1/ ", BASE_URL),
            ("http://_api.internal:4280", PRIVATE_BASE_URL),
            ("http://127.0.0.1:4280/fly/v1", "http://127.0.0.1:4280/fly"),
        ] {
            let client = Client::new(given, &Token::new("t")).expect("an address");
            assert_eq!(client.base(), base);
        }
        for bad in ["", "api.machines.dev", "ftp://a", "http://u:p@a", "http://a?b=c", "unix:/a"] {
            assert!(Client::new(bad, &Token::new("t")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_no_token() {
        assert!(Client::new(BASE_URL, &Token::new("a\nb")).is_err());
        let client = Client::new(BASE_URL, &Token::new("geheim")).expect("a client");
        assert!(!format!("{client:?}").contains("geheim"));
    }
}
