//! The HTTP side: extract, convert, call one function, convert back. Routes are listed here.
//! The only module that knows axum's router and the wire types of `callbox-protocol::api`.

mod arrival;
mod caller;
mod carried;
mod drain;
mod error;
mod health;
mod list;
mod page;
mod prices;
mod replicas;
mod rollouts;
mod sessions;
mod start;
mod sweep;
mod view;
mod webhooks;

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{any, get},
};
use callbox_protocol::api::{QUEUE_POSITION_HEADER, QUEUE_WAIT_HEADER, SESSION_ID_HEADER};
use metrics_exporter_prometheus::PrometheusHandle;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::{
    OpenApi as _,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{plane::Plane, store::KeyRecord};
use error::Error;

/// What every handler has.
#[derive(Clone)]
pub struct App {
    /// The dispatcher.
    pub plane: Arc<Plane>,
    /// Whether only this host can reach us. Then, and only while no key exists, none is needed.
    pub loopback: bool,
    /// What was counted; none where nothing is (tests).
    pub prometheus: Option<PrometheusHandle>,
}

impl App {
    /// Whether a request needs a key. Asked anew each time: the first key locks the door.
    async fn auth(&self) -> Result<bool, Error> {
        Ok(!self.loopback || self.plane.store.keys().await?.iter().any(KeyRecord::works))
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "callbox",
        description = "Every call gets its own machine.",
        license(name = "MIT OR Apache-2.0")
    ),
    modifiers(&Security)
)]
struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(bearer));
    }
}

fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(start::start))
        .routes(routes!(start::start_bot))
        .routes(routes!(list::list))
        .routes(routes!(sessions::show, sessions::end))
        .routes(routes!(sessions::events))
        .routes(routes!(sessions::logs))
        .routes(routes!(drain::begin, drain::status, drain::cancel))
        .routes(routes!(sweep::look, sweep::run))
        .routes(routes!(rollouts::list))
        .routes(routes!(rollouts::begin))
        .routes(routes!(health::info))
        .routes(routes!(replicas::list))
        .routes(routes!(prices::list))
        .routes(routes!(webhooks::receive))
}

/// The OpenAPI document, as `/openapi.json` serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().split_for_parts().1
}

/// Everything that is served.
pub fn router(app: App) -> Router {
    let (api, document) = documented().split_for_parts();
    let limit = app.plane.config.max_body_bytes;
    let cors = cors(&app.plane.config.allowed_origins);
    api.route("/openapi.json", get(|| async move { axum::Json(document) }))
        .route("/ws/{id}", any(carried::websocket))
        .route("/v1/machines/{machine}/link", get(arrival::link))
        .route("/sessions/{id}/{*path}", any(carried::http))
        .route("/status", get(health::status))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::prometheus))
        .fallback(get(page::file).fallback(|| async { Error::UnknownPath }))
        .method_not_allowed_fallback(|| async { Error::WrongMethod })
        .layer(middleware::map_response(move |response| json_refusals(response, limit)))
        .layer(DefaultBodyLimit::max(limit))
        .layer(cors)
        .with_state(app)
}

/// Extractors refuse in plain text, which clients cannot read: theirs become ours.
async fn json_refusals(response: Response, limit: usize) -> Response {
    let status = response.status();
    let plain = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() && plain) || response.extensions().get::<Carried>().is_some() {
        return response;
    }
    match status.as_u16() {
        413 => Error::TooLarge { limit }.into_response(),
        _ => {
            let text = axum::body::to_bytes(response.into_body(), 4096).await.unwrap_or_default();
            let problem = String::from_utf8_lossy(&text).into_owned();
            Error::Invalid { what: "request", problem }.into_response()
        }
    }
}

/// Marks an answer that is the bot's own, which is passed on as it is.
#[derive(Clone, Copy)]
struct Carried;

fn cors(origins: &[String]) -> CorsLayer {
    let origins: Vec<HeaderValue> =
        origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers(
            [SESSION_ID_HEADER, QUEUE_POSITION_HEADER, QUEUE_WAIT_HEADER]
                .map(HeaderName::from_static)
                .into_iter()
                .chain([header::RETRY_AFTER])
                .collect::<Vec<_>>(),
        )
}
