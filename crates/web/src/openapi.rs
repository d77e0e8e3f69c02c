//! What the OpenAPI documents of all services have in common.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{InfoBuilder, License, LicenseBuilder, OpenApi, RefOr, Response};

/// The document with its title and what it is about, the scheme of tokens, and a description of each
/// answer: one that its handler does not describe is called by its status.
#[must_use]
pub fn described(mut document: OpenApi, title: &str, description: String) -> OpenApi {
    document.info = InfoBuilder::new()
        .title(title)
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(description))
        .license(Some(licence()))
        .build();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("bearer", SecurityScheme::Http(bearer));
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            for (status, response) in &mut operation.responses.responses {
                name(status, response);
            }
        }
    }
    document
}

fn licence() -> License {
    LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()
}

fn name(status: &str, response: &mut RefOr<Response>) {
    let RefOr::T(response) = response else { return };
    if response.description.is_empty() {
        let status = status.as_bytes();
        let reason = axum::http::StatusCode::from_bytes(status).ok();
        response.description =
            reason.and_then(|status| status.canonical_reason()).unwrap_or("An answer").to_owned();
    }
}
