//! Leases (fly.md section 3.3).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::lenient::or_default;

/// Body of an acquire or an extension.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct LeaseRequest {
    /// Seconds that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<i64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A lease: who has its nonce may change the machine, nobody else. `Debug` does not show it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Lease {
    /// Goes into the header `fly-machine-lease-nonce` of every call that changes the machine.
    #[serde(default, deserialize_with = "or_default")]
    pub nonce: String,
    /// Seconds since 1970.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// Who holds it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of the machine.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("expires_at", &self.expires_at)
            .field("owner", &self.owner)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// A lease as it is answered: in the envelope `{"status":"success","data":{…}}` of the docs and
/// fly-go, or flat, as the specification has it. Both are read; the envelope is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeaseAnswer {
    /// `success`
    pub status: String,
    /// The lease.
    pub data: Lease,
}

impl LeaseAnswer {
    /// As it is served.
    pub fn new(data: Lease) -> LeaseAnswer {
        LeaseAnswer { status: "success".into(), data }
    }
}

impl<'de> Deserialize<'de> for LeaseAnswer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<LeaseAnswer, D::Error> {
        use serde::de::Error;
        let value = Value::deserialize(from)?;
        let lease = value.get("data").filter(|data| data.is_object()).unwrap_or(&value);
        let lease: Lease = serde_json::from_value(lease.clone()).map_err(Error::custom)?;
        Ok(LeaseAnswer::new(lease))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_shapes_are_read() {
        let flat = json!({"nonce": "n", "expires_at": 7});
        for value in [flat.clone(), json!({"status": "success", "data": flat})] {
            let answer: LeaseAnswer = serde_json::from_value(value).expect("a lease");
            assert_eq!((answer.data.nonce.as_str(), answer.data.expires_at), ("n", Some(7)));
        }
    }
}
