//! What a bot's configuration lets its machines reach.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::never;

/// One entry of an allow-list: `203.0.113.0/24`, `203.0.113.7:443`, `api.example.com:443`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Allow {
    /// Where to.
    pub to: To,
    /// The port there; every port (and ping) if absent.
    pub port: Option<u16>,
}

/// Where an entry of an allow-list leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// Addresses.
    Block(Ipv4Net),
    /// A name, for the addresses that it has when a machine is made.
    Name(String),
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Allow, String> {
        if text.parse::<Ipv6Net>().is_ok()
            || text.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok()
        {
            return Err(format!("{text:?} is an ipv6 address, and machines have none"));
        }
        let (place, port) = match text.split_once(':') {
            None => (text, None),
            Some((place, port)) => match port.parse() {
                Ok(port @ 1..) => (place, Some(port)),
                _ => return Err(format!("{port:?} in {text:?} is no port of 1 to 65535")),
            },
        };
        let block = place.parse().or_else(|_| place.parse::<Ipv4Addr>().map(Ipv4Net::from));
        let block: Ipv4Net = match block {
            Ok(block) => block,
            Err(_) if is_name(place) => return Ok(Allow { to: To::Name(place.into()), port }),
            Err(_) => {
                return Err(format!(
                    "{place:?} is neither an address like 203.0.113.7 or 203.0.113.0/24 nor a \
                     name like api.example.com"
                ));
            }
        };
        if let Some((never, what)) = never::holds(block) {
            return Err(format!(
                "{text:?} lies in {never} ({what}), which no machine ever reaches"
            ));
        }
        Ok(Allow { to: To::Block(block.trunc()), port })
    }
}

/// Whole names only: what a wildcard stands for cannot be asked.
fn is_name(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(legal);
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253
        && text.contains('.')
        && text.split('.').all(label)
        && last.bytes().any(|byte| byte.is_ascii_lowercase())
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            To::Block(block) if block.prefix_len() == 32 => write!(f, "{}", block.addr())?,
            To::Block(block) => write!(f, "{block}")?,
            To::Name(name) => f.write_str(name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl TryFrom<String> for Allow {
    type Error = String;

    fn try_from(text: String) -> Result<Allow, String> {
        text.parse()
    }
}

impl From<Allow> for String {
    fn from(allow: Allow) -> String {
        allow.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_blocks_names_and_ports_are_understood() {
        for (text, same) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7/24", "203.0.113.0/24"),
            ("203.0.113.7:443", "203.0.113.7:443"),
            ("203.0.113.0/24:80", "203.0.113.0/24:80"),
            ("api.example.com", "api.example.com"),
            ("api.eu-1.example.com:443", "api.eu-1.example.com:443"),
        ] {
            let allow: Allow = text.parse().expect(text);
            assert_eq!(allow.to_string(), same);
            assert_eq!(same.parse(), Ok(allow));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        for (text, word) in [
            ("*.example.com:443", "neither an address"),
            ("localhost", "neither an address"),
            ("203.0.113", "neither an address"),
            ("10.1.0.0/16", "no machine ever reaches"),
            ("169.254.169.254:80", "metadata"),
            ("2001:db8::/32", "ipv6"),
            ("[2001:db8::1]", "ipv6"),
            ("203.0.113.7:0", "no port"),
            ("203.0.113.7:http", "no port"),
            ("203.0.113.0/33", "neither an address"),
            ("", "neither an address"),
        ] {
            let error = text.parse::<Allow>().expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
