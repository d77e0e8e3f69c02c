//! `stormwire token`.

use crate::cli::TokenArgs;
use crate::config::{Config, Profile};
use crate::connect::sign;
use crate::failure::Failure;
use crate::output;
use stormwire_identity::{DevelopmentKey, TokenRequest};

/// Prints one token.
pub(crate) fn run(args: TokenArgs, config: &Config) -> Result<(), Failure> {
    if config.profile == Profile::Production {
        return Err(Failure::usage(
            "production accepts no token of the development key; ask your identity provider",
        ));
    }
    let key = DevelopmentKey::load_or_create(&config.data_dir).map_err(Failure::failed)?;
    let request = TokenRequest {
        publish: args.publish,
        subscribe: args.subscribe,
        roles: args.role,
        ttl: args.ttl,
        ..TokenRequest::new(args.user)
    };
    output::line(sign(&key, request)?)
}
