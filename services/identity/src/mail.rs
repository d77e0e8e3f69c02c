//! Mail: the port, its engine for development, and what the mails say.

use async_trait::async_trait;

/// A mail that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The address.
    pub to: String,
    /// The subject.
    pub subject: String,
    /// Plain text.
    pub text: String,
}

/// Why a mail was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the mail was not taken: {0}")]
pub struct MailError(pub String);

/// The port for mail.
#[async_trait]
pub trait Mailer: Send + Sync + 'static {
    /// Hands a mail over. `Ok` means that somebody else answers for it from now on.
    ///
    /// # Errors
    /// [`MailError`]; the mail may be handed over again.
    async fn send(&self, mail: Mail) -> Result<(), MailError>;
}

/// Writes mails to the log, tokens and all: for development alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogMailer;

#[async_trait]
impl Mailer for LogMailer {
    async fn send(&self, mail: Mail) -> Result<(), MailError> {
        let Mail { to, subject, text } = mail;
        tracing::info!(to, subject, text, "a mail");
        Ok(())
    }
}

/// The mail that shows that an address is its owner's.
pub(crate) fn verification(to: String, token: &str) -> Mail {
    let text = format!(
        "Somebody gave this address for an account. If it was you, confirm it within a day with this token:\n\n{token}\n\nIf not, do nothing."
    );
    Mail { to, subject: "Confirm your address".to_owned(), text }
}

/// The mail that lets its reader set a new password.
pub(crate) fn reset(to: String, token: &str) -> Mail {
    let text = format!(
        "Somebody asked for a new password of your account. If it was you, set it within an hour with this token:\n\n{token}\n\nIf not, do nothing: your password stays."
    );
    Mail { to, subject: "Set a new password".to_owned(), text }
}

/// The mail that tells of a new password.
pub(crate) fn changed(to: String) -> Mail {
    let text = "The password of your account was changed, and all other sign-ins were ended. If it was not you, ask for a new password at once.";
    Mail { to, subject: "Your password was changed".to_owned(), text: text.to_owned() }
}
