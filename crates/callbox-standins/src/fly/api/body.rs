//! Bodies and queries, read as Fly reads them: strictly, but for unknown fields.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::fly::refusal::Refusal;

/// A JSON body, whatever its content type says. Nothing at all is `{}`.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Refusal> {
        let bytes = Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|_| Refusal::invalid("the body cannot be read"))?;
        let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Body).map_err(Refusal::invalid)
    }
}

/// The pairs of a query, in order.
pub struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query, Refusal> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state);
        let pairs = pairs.await.map_err(Refusal::invalid)?;
        Ok(Query(pairs.0))
    }
}

impl Query {
    /// The first value of that name that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs().find(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value)
    }

    /// Whether it is `true` or `1`.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    /// All values of that name, repeated or separated by commas.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let values = self.pairs().filter(|(key, _)| *key == name);
        values.flat_map(|(_, v)| v.split(',')).map(str::trim).filter(|v| !v.is_empty()).collect()
    }

    /// The pairs whose names begin so, without that beginning.
    pub fn starting_with(&self, start: &str) -> Vec<(&str, &str)> {
        self.pairs().filter_map(|(key, value)| Some((key.strip_prefix(start)?, value))).collect()
    }

    /// A number, if there is one of that name.
    pub fn number(&self, name: &str) -> Result<Option<u32>, Refusal> {
        let wrong = |_| Refusal::invalid(format!("{name} is no number"));
        self.get(name).map(|value| value.parse().map_err(wrong)).transpose()
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}
