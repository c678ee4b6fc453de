//! Calls without a socket, so that time can be paused.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use callbox_fly::Token;
use callbox_standins::fly::backend::{Fake, Program, Times};
use callbox_standins::fly::{Limits, Settings, StandIn};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

pub struct Api {
    pub standin: StandIn,
    pub fake: Arc<Fake>,
    router: Router,
}

pub struct Answered {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

pub fn settings(limits: Limits) -> Settings {
    Settings { limits, seed: 7, ..Settings::new("bots", Token::new("fm2_test")) }
}

impl Api {
    pub fn new(times: Times, limits: Limits, program: Program) -> Api {
        Api::with(settings(limits), times, program)
    }

    pub fn with(settings: Settings, times: Times, program: Program) -> Api {
        let fake = Arc::new(Fake::new(times, 7, program));
        let standin = StandIn::new(settings, fake.clone());
        Api { router: standin.router(), standin, fake }
    }

    /// No limits, the documented times.
    pub fn plain() -> Api {
        Api::new(Times::default(), Limits::none(), Program::until_signal())
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> Answered {
        self.call_with(method, path, body, &[("authorization", "FlyV1 fm2_test")]).await
    }

    pub async fn call_with(
        &self,
        method: Method,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Answered {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answered { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Answered {
        self.call(Method::GET, path, Value::Null).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answered {
        self.call(Method::POST, path, body).await
    }

    pub async fn delete(&self, path: &str) -> Answered {
        self.call(Method::DELETE, path, Value::Null).await
    }

    /// Creates a machine with this configuration over an image; gives its id.
    pub async fn create(&self, config: Value) -> String {
        let mut all = json!({"image": "parrot"});
        all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        let made = self.post(MACHINES, json!({"config": all})).await;
        assert_eq!(made.status, 200, "{}", made.body);
        made.body["id"].as_str().unwrap().to_owned()
    }

    pub async fn wait(&self, id: &str, states: &str) -> Answered {
        self.get(&format!("{MACHINES}/{id}/wait?state={states}")).await
    }

    pub async fn state(&self, id: &str) -> String {
        let got = self.get(&format!("{MACHINES}/{id}")).await;
        got.body["state"].as_str().unwrap_or_default().to_owned()
    }

    pub async fn act(&self, id: &str, action: &str) -> Answered {
        self.post(&format!("{MACHINES}/{id}/{action}"), Value::Null).await
    }
}

pub const MACHINES: &str = "/v1/apps/bots/machines";
