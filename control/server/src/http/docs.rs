//! The API's description: OpenAPI, and a page to browse it that needs nothing from elsewhere.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::Html;
use axum::routing::get;
use utoipa::Modify;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};

/// Every endpoint wants a token, but those that say otherwise.
pub struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("PASETO v4.public")
            .description(Some("From `POST /v1/login`, or `dormouse-control token`"))
            .build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        api.security = Some(vec![SecurityRequirement::new("token", Vec::<String>::new())]);
    }
}

const PAGE: &str = include_str!("docs.html");

pub fn routes<S: Clone + Send + Sync + 'static>(document: &OpenApi) -> Router<S> {
    let json = document.to_json().unwrap_or_default();
    let json_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Router::new()
        .route("/openapi.json", get(async move || (json_type, json)))
        .route("/docs", get(async || Html(PAGE)))
        .route("/healthz", get(async || "ok\n"))
}
