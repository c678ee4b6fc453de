//! Sending a request and reading its answer: bounded, timed, and never believed blindly.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER};
use reqwest::{Method, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Client;
use crate::classify::classify;
use crate::{Action, Error, ErrorKind};

/// Largest answer that is read, in bytes. A list has no pages; a machine in it takes a few KB.
const LARGEST: usize = 32 * 1024 * 1024;

/// Names the request; Fly's support asks for it.
const REQUEST_ID: &str = "fly-request-id";

/// One call, before it is sent.
pub(super) struct Call {
    action: Action,
    request: Request,
}

impl Call {
    /// With a value of the query.
    pub fn query(mut self, name: &str, value: &str) -> Call {
        self.request.url_mut().query_pairs_mut().append_pair(name, value);
        self
    }

    /// With a header; what cannot be one is left out, and the server will say so.
    pub fn header(mut self, name: &'static str, value: Option<&str>) -> Call {
        if let Some(value) = value.and_then(|value| value.parse().ok()) {
            self.request.headers_mut().insert(name, value);
        }
        self
    }

    /// With a JSON body.
    pub fn json(mut self, body: &impl Serialize) -> Result<Call, Error> {
        let bytes = serde_json::to_vec(body).map_err(|source| {
            Error::new(self.action, ErrorKind::NotSent, format!("no such body: {source}"))
        })?;
        let headers = self.request.headers_mut();
        headers.insert(
            reqwest::header::CONTENT_TYPE,
            reqwest::header::HeaderValue::from_static("application/json"),
        );
        *self.request.body_mut() = Some(bytes.into());
        Ok(self)
    }
}

impl Client {
    /// A call to `/v1/<path>`. The segments of the path may hold anything.
    pub(super) fn call(&self, action: Action, method: Method, path: &[&str]) -> Call {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        let mut request = Request::new(method, url);
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        Call { action, request }
    }

    /// Sends it and reads an answer of JSON.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        call: Call,
        limit: Duration,
    ) -> Result<T, Error> {
        let action = call.action;
        let (status, request_id, body) = self.send(call, limit).await?;
        serde_json::from_slice(&body).map_err(|source| {
            // The path to the field is enough; the body may hold what is nobody's business.
            let text = format!("an answer that makes no sense: {source}");
            Error::new(action, ErrorKind::AnswerLost, text).answered(status, request_id.as_deref())
        })
    }

    /// Sends it; that it was answered with success is enough.
    pub(super) async fn done(&self, call: Call, limit: Duration) -> Result<(), Error> {
        self.send(call, limit).await.map(|_| ())
    }

    async fn send(
        &self,
        call: Call,
        limit: Duration,
    ) -> Result<(u16, Option<String>, Vec<u8>), Error> {
        let Call { action, mut request } = call;
        *request.timeout_mut() = Some(limit);
        let path = request.url().path().to_owned();
        let began = std::time::Instant::now();
        let response = self.http.execute(request).await;
        let response = response.map_err(|source| {
            let error = broken(action, &source, limit);
            tracing::debug!(fly.action = action.name(), fly.path = path, %error, "no answer");
            error
        })?;
        let status = response.status().as_u16();
        let header = |name: &str| text(response.headers(), name);
        let (request_id, retry_after) = (header(REQUEST_ID), header(RETRY_AFTER.as_str()));
        tracing::debug!(
            fly.action = action.name(),
            fly.path = path,
            fly.status = status,
            fly.request_id = request_id.as_deref().unwrap_or_default(),
            elapsed_ms = began.elapsed().as_millis() as u64,
            "answered"
        );
        let body = read_body(action, response, limit)
            .await
            .map_err(|error| error.answered(status, request_id.as_deref()))?;
        if (200..300).contains(&status) {
            return Ok((status, request_id, body));
        }
        Err(classify(action, status, retry_after.as_deref(), request_id.as_deref(), &body))
    }
}

async fn read_body(
    action: Action,
    mut response: Response,
    limit: Duration,
) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > LARGEST => {
                let text = format!("an answer of more than {LARGEST} bytes");
                return Err(Error::new(action, ErrorKind::AnswerLost, text));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(source) => {
                let error = broken(action, &source, limit);
                return Err(Error::new(action, ErrorKind::AnswerLost, error.text));
            }
        }
    }
}

/// What a broken request means: did it leave?
///
/// Only what failed while connecting certainly did not. A connection of the pool that the server
/// closed meanwhile is tried again by hyper as long as nothing was written.
fn broken(action: Action, source: &reqwest::Error, limit: Duration) -> Error {
    let unsent = source.is_connect() || source.is_builder();
    let kind = if unsent { ErrorKind::NotSent } else { ErrorKind::AnswerLost };
    let mut text = match source.is_timeout() {
        true if unsent => "no connection in time".to_owned(),
        true => format!("no answer within {} ms", limit.as_millis()),
        false => "the connection failed".to_owned(),
    };
    // The innermost cause says what happened; the outer ones name the address once more.
    let mut cause: &dyn std::error::Error = source;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if !source.is_timeout() {
        text = format!("{text}: {cause}");
    }
    Error::new(action, kind, text)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.chars().take(200).collect())
}
