//! What one machine reaches: an allow-list with its names looked up.
//!
//! The host looks them up when the machine is made, and both sides are told the same: the rules
//! let through the addresses, the machine's `/etc/hosts` has them. So a machine with a list needs
//! to ask nobody, and cannot carry words out in its questions.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::Ipv4Net;

use super::allow::{Allow, To};
use super::{NetError, never};

/// How long the lookup of all names may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses of one name; more are not needed by anybody.
const MOST: usize = 16;

/// The addresses of names.
pub type Names = BTreeMap<String, Vec<Ipv4Addr>>;

/// What one machine reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of the internet.
    All,
    /// These blocks, at this port or at all.
    Only(Vec<(Ipv4Net, Option<u16>)>),
}

impl Reach {
    /// Looks up what must be. An empty list is everything.
    ///
    /// # Errors
    /// [`NetError::Name`] if a name has no address now, or one that no machine reaches.
    pub async fn of(allow: &[Allow]) -> Result<(Reach, Names), NetError> {
        if allow.is_empty() {
            return Ok((Reach::All, Names::new()));
        }
        let names = allow.iter().filter_map(|entry| match &entry.to {
            To::Name(name) => Some(name.as_str()),
            To::Block(_) => None,
        });
        let names = look_up(names.collect()).await?;
        let only = allow.iter().flat_map(|entry| {
            let blocks = match &entry.to {
                To::Block(block) => vec![*block],
                To::Name(name) => names[name].iter().copied().map(Ipv4Net::from).collect(),
            };
            blocks.into_iter().map(|block| (block, entry.port))
        });
        Ok((Reach::Only(only.collect()), names))
    }
}

async fn look_up(names: Vec<&str>) -> Result<Names, NetError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut found = Names::new();
    for name in names {
        let failed = |why: String| NetError::Name { name: name.to_owned(), why };
        let asking = tokio::net::lookup_host((name, 0));
        let answer = tokio::time::timeout_at(deadline, asking).await;
        let answer = answer.map_err(|_| failed(format!("no answer within {PATIENCE:?}")))?;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let mut addresses: Vec<Ipv4Addr> = answer
            .filter_map(|address| match address.ip() {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MOST);
        if addresses.is_empty() {
            return Err(failed("it has no ipv4 address".to_owned()));
        }
        // A name that points into the private network is a mistake or an attempt.
        for address in &addresses {
            if let Some((_, what)) = never::holds((*address).into()) {
                return Err(failed(format!(
                    "it has the address {address} ({what}), which no machine ever reaches"
                )));
            }
        }
        found.insert(name.to_owned(), addresses);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_list_is_everything_and_any_other_only_what_it_says() {
        assert_eq!(Reach::of(&[]).await.expect("nothing to look up").0, Reach::All);
        let one: Allow = "203.0.113.7:443".parse().expect("an address");
        let block: Ipv4Net = "203.0.113.7/32".parse().expect("a block");
        let (reach, names) = Reach::of(&[one]).await.expect("nothing to look up");
        assert_eq!((reach, names), (Reach::Only(vec![(block, Some(443))]), Names::new()));
    }

    #[tokio::test]
    async fn a_name_without_an_address_makes_no_machine() {
        let allow = Allow { to: To::Name("no.such.name.invalid".into()), port: None };
        let error = Reach::of(&[allow]).await.expect_err("it cannot have one");
        assert!(error.to_string().contains("no.such.name.invalid"), "{error}");
        let allow = Allow { to: To::Name("localhost".into()), port: None };
        let error = Reach::of(&[allow]).await.expect_err("it is the host").to_string();
        assert!(error.contains("127.0.0.1") && error.contains("loopback"), "{error}");
    }
}
