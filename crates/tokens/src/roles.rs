//! Roles and what they permit beyond channels.

use std::fmt;

/// What an account is in the system. Each may what the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Itself alone.
    User,
    /// Looks after others.
    Moderator,
    /// Everything.
    Admin,
}

/// Something that is not about a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// See the accounts and sign-ins of others.
    ReadAccounts,
    /// End the sign-ins of others.
    RevokeSessions,
    /// Shut accounts out.
    BlockAccounts,
    /// Give and take roles.
    ManageRoles,
    /// See and change how the server works.
    Operate,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 3] = [Self::User, Self::Moderator, Self::Admin];

    /// The name, as in the claim `roles`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Moderator => "moderator",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether the role permits it.
    #[must_use]
    pub const fn permits(self, permission: Permission) -> bool {
        match permission {
            Permission::ReadAccounts | Permission::RevokeSessions | Permission::BlockAccounts => {
                matches!(self, Self::Moderator | Self::Admin)
            }
            Permission::ManageRoles | Permission::Operate => matches!(self, Self::Admin),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 5] = [
        Self::ReadAccounts,
        Self::RevokeSessions,
        Self::BlockAccounts,
        Self::ManageRoles,
        Self::Operate,
    ];

    /// The name, for messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadAccounts => "read accounts",
            Self::RevokeSessions => "revoke sessions",
            Self::BlockAccounts => "block accounts",
            Self::ManageRoles => "manage roles",
            Self::Operate => "operate the server",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_permissions() {
        let table = [
            (Role::User, [false; 5]),
            (Role::Moderator, [true, true, true, false, false]),
            (Role::Admin, [true; 5]),
        ];
        for (role, expected) in table {
            assert_eq!(
                Permission::ALL.map(|permission| role.permits(permission)),
                expected,
                "{role}"
            );
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
    }
}
