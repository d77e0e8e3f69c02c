//! What a password must be.

use stormwire_core::Refusal;

/// Characters of a password, at least.
const CHARACTERS_MIN: usize = 8;
/// Bytes of a password, at most: hashing reads all of them.
const BYTES_MAX: usize = 1024;

/// What stands in the place of a hash where an account has no password: no hash looks like it.
pub(crate) const NO_PASSWORD: &str = "-";

/// Lets `password` be somebody's who is called one of `names`.
pub(crate) fn check(field: &str, password: &str, names: &[&str]) -> Result<(), Refusal> {
    let bad = |rule: &str| Err(Refusal::invalid_field(field, rule));
    if password.len() > BYTES_MAX {
        return bad("longer than 1024 bytes");
    }
    if password.chars().count() < CHARACTERS_MIN {
        return bad("shorter than 8 characters");
    }
    let first = password.chars().next();
    if password.chars().all(|c| Some(c) == first) {
        return bad("one character again and again");
    }
    if names.iter().any(|name| name.eq_ignore_ascii_case(password)) {
        return bad("it is the account's own name or address");
    }
    Ok(())
}

/// Whether `password` is so long that it is nobody's.
pub(crate) const fn is_too_long(password: &str) -> bool {
    password.len() > BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_long_enough_and_not_the_name() {
        assert!(check("password", "correct horse", &["alice"]).is_ok());
        assert!(check("password", "пароль-пароль", &[]).is_ok());
        let long = "ab".repeat(600);
        for bad in ["", "short", "aaaaaaaaaaaa", "Alice.Smith", &long] {
            assert!(check("password", bad, &["alice.smith"]).is_err(), "{bad}");
        }
    }
}
