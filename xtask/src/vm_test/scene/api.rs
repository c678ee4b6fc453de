//! The dispatcher's API in the hands of a client that does not give up.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// How long anything may take, a dispatcher's restart on a busy host included.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// How long a single request may take before it is asked anew.
const REQUEST: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// Where the dispatcher is, whichever it is: all serve on the same address.
#[derive(Clone, Debug)]
pub struct Api {
    pub address: String,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub body: Value,
    /// Requests that a dispatcher took and did not answer, before one did.
    pub cut: u64,
}

enum Unanswered {
    /// Nobody was there.
    Unreachable(io::Error),
    /// Somebody was, and died.
    Cut(io::Error),
}

impl Api {
    /// Asks until somebody answers with something else than "not now".
    pub fn insist(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> anyhow::Result<Answer> {
        let began = Instant::now();
        let mut cut = 0;
        loop {
            let why = match self.once(method, path, key, body) {
                Ok((status, body)) if !matches!(status, 429 | 503 | 504) => {
                    return Ok(Answer { status, body, cut });
                }
                Ok((status, body)) => format!("{status} {body}"),
                Err(Unanswered::Unreachable(error)) => error.to_string(),
                Err(Unanswered::Cut(error)) => {
                    cut += 1;
                    error.to_string()
                }
            };
            if began.elapsed() > PATIENCE {
                bail!("{method} {path} is not answered within {} s: {why}", PATIENCE.as_secs());
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn once(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> Result<(u16, Value), Unanswered> {
        let Api { address } = self;
        let mut stream = TcpStream::connect(address).map_err(Unanswered::Unreachable)?;
        let key = key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{key}\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let exchanged = (|| {
            stream.set_read_timeout(Some(REQUEST))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            parsed(&answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })();
        exchanged.map_err(Unanswered::Cut)
    }

    /// Whether it answers.
    pub fn serves(&self) -> bool {
        self.once("GET", "/healthz", None, "").is_ok_and(|(status, _)| status == 200)
    }

    /// Whether sessions start without waiting for templates.
    pub fn is_ready(&self) -> bool {
        self.once("GET", "/readyz", None, "").is_ok_and(|(status, _)| status == 200)
    }

    /// The session as it is now; none if nobody knows it.
    pub fn session(&self, id: &str) -> anyhow::Result<Option<Value>> {
        let Answer { status, body, .. } =
            self.insist("GET", &format!("/v1/sessions/{id}"), None, "")?;
        match status {
            200 => Ok(Some(body)),
            404 => Ok(None),
            _ => bail!("GET of session {id} answers {status}: {body}"),
        }
    }

    /// All sessions that there are, or only those that have not ended.
    pub fn sessions(&self, all: bool) -> anyhow::Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let mut before = String::new();
        loop {
            let path = format!("/v1/sessions?all={all}&limit=500{before}");
            let Answer { status, body, .. } = self.insist("GET", &path, None, "")?;
            let page = body["sessions"].as_array();
            let page = page.with_context(|| format!("{path} answers {status}: {body}"))?;
            found.extend(page.iter().filter_map(|one| Some(one["id"].as_str()?.to_owned())));
            match body["next"].as_str() {
                Some(next) => before = format!("&before={next}"),
                None => return Ok(found),
            }
        }
    }
}

/// Status and body of an answer that is whole.
fn parsed(answer: &str) -> Option<(u16, Value)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| body.len() < length) {
        return None;
    }
    Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_answer_is_none() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\": 1}";
        assert_eq!(parsed(whole), Some((200, serde_json::json!({"a": 1}))));
        assert_eq!(parsed(&whole[..whole.len() - 1]), None);
        assert_eq!(parsed("HTTP/1.1 200 OK\r\nContent-Le"), None);
        assert_eq!(parsed(""), None);
    }
}
