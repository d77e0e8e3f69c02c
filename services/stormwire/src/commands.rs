//! What each command does; one file a command.

pub(crate) mod admin;
pub(crate) mod backup;
pub(crate) mod canary;
pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod identity;
pub(crate) mod journal;
pub(crate) mod latest;
pub(crate) mod migrate;
pub(crate) mod presence;
pub(crate) mod publish;
pub(crate) mod replay;
pub(crate) mod restore;
pub(crate) mod settings;
pub(crate) mod signal;
pub(crate) mod subscribe;
pub(crate) mod token;
pub(crate) mod trace;
pub(crate) mod verify;
