//! The routes under `/v1/auth/`, `/v1/admin/users/` and `/.well-known/`.

mod account;
mod admin;
mod input;
mod internal;
mod keys;
mod links;
mod login;
mod mail;
mod oidc;
mod sessions;
mod well_known;

use crate::service::{Identity, Shared};
use axum::Router;
use axum::extract::FromRef;
use std::sync::Arc;
use stormwire_web::CallerState;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the routes need.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub(crate) shared: Arc<Shared>,
    pub(crate) caller: CallerState,
}

impl FromRef<HttpState> for CallerState {
    fn from_ref(state: &HttpState) -> Self {
        state.caller.clone()
    }
}

impl Identity {
    /// Everything that a client can ask for; `caller` verifies the tokens that this service signs.
    pub fn routes(&self, caller: CallerState) -> Router {
        let state = HttpState { shared: Arc::clone(&self.shared), caller };
        api().with_state(state).split_for_parts().0
    }
}

fn api() -> OpenApiRouter<HttpState> {
    OpenApiRouter::new()
        .routes(routes!(account::register))
        .routes(routes!(account::password))
        .routes(routes!(account::role))
        .routes(routes!(login::login))
        .routes(routes!(login::refresh))
        .routes(routes!(login::logout))
        .routes(routes!(sessions::own))
        .routes(routes!(sessions::of_user))
        .routes(routes!(sessions::end_own))
        .routes(routes!(sessions::end_of_user))
        .routes(routes!(keys::make, keys::list))
        .routes(routes!(keys::end))
        .routes(routes!(keys::exchange))
        .routes(routes!(oidc::list))
        .routes(routes!(oidc::begin))
        .routes(routes!(oidc::callback))
        .routes(routes!(oidc::ticket))
        .routes(routes!(links::list, links::add))
        .routes(routes!(links::remove))
        .routes(routes!(mail::ask_for_verification))
        .routes(routes!(mail::verify))
        .routes(routes!(mail::ask_for_reset))
        .routes(routes!(mail::reset))
        .routes(routes!(admin::user))
        .routes(routes!(admin::block))
        .routes(routes!(admin::sign_out))
        .routes(routes!(well_known::jwks))
        .routes(routes!(well_known::configuration))
}

/// The description of the routes.
#[must_use]
pub fn openapi_document() -> OpenApi {
    let about = "Accounts, sign-in, sessions, API keys and the public keys of tokens. Gateways forward \
                 these routes.";
    stormwire_web::described(api().into_openapi(), "Stormwire identity", about.to_owned())
}
