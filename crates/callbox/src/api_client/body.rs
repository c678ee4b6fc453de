//! Answers' bodies: bounded, parsed, and an error where they make no sense.

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::Response;
use serde::de::DeserializeOwned;

use super::ApiError;
use crate::sse;

/// Largest answer that is read, in bytes.
const LARGEST: usize = 16 * 1024 * 1024;
/// The values of the events called `name`; other events are none of our business.
pub fn events_named<T: DeserializeOwned>(
    doing: &'static str,
    name: &'static str,
    bytes: impl Stream<Item = Result<Bytes, ApiError>>,
) -> impl Stream<Item = Result<T, ApiError>> {
    let mut parser = sse::Parser::default();
    bytes
        .map(move |chunk| {
            parser
                .push(&chunk?)
                .map_err(|error| ApiError::Nonsense { doing, found: error.to_string() })
        })
        .map_ok(|events| futures::stream::iter(events.into_iter().map(Ok)))
        .try_flatten()
        .try_filter_map(move |event| async move {
            if event.name != name {
                return Ok(None);
            }
            serde_json::from_str(&event.data)
                .map(Some)
                .map_err(|source| ApiError::json(doing, event.data.as_bytes(), source))
        })
}

/// The whole body as a value.
pub async fn read_json<T: DeserializeOwned>(
    doing: &'static str,
    response: Response,
) -> Result<T, ApiError> {
    let body = read_body(doing, response).await?;
    serde_json::from_slice(&body).map_err(|source| ApiError::json(doing, &body, source))
}

/// The whole body, whatever it is.
pub async fn read_body(doing: &'static str, mut response: Response) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > LARGEST => {
                let found = format!("an answer of more than {LARGEST} bytes");
                return Err(ApiError::Nonsense { doing, found });
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(source) => return Err(ApiError::broken(doing, source)),
        }
    }
}
