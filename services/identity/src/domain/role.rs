//! What an account may do in its product.
use std::collections::BTreeSet;

use crate::error::Error;

/// The role that everybody has; it is not written down.
const USER: &str = "user";

/// A role beyond that of every user. Each lists what it is for; an RPC asks for exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Everything in the product.
    Admin,
    /// Judges what others hand in.
    Reviewer,
    /// Helps users.
    Support,
}

impl Role {
    /// Every role, in the order in which they are written.
    const ALL: [Role; 3] = [Role::Admin, Role::Reviewer, Role::Support];

    /// As stored and as in the claim `roles`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Reviewer => "reviewer",
            Role::Support => "support",
        }
    }

    /// The role with this name; none for `user`, which is nothing to give or take.
    ///
    /// Errors: [`Error::UnknownRole`].
    pub fn parse(name: &str) -> Result<Option<Role>, Error> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == name);
        if found.is_some() || name == USER { Ok(found) } else { Err(Error::UnknownRole(name.to_owned())) }
    }
}

/// The roles of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// From names.
    ///
    /// Errors: [`Error::UnknownRole`].
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Roles, Error> {
        let parsed = names.into_iter().map(Role::parse).collect::<Result<Vec<_>, Error>>()?;
        Ok(Roles(parsed.into_iter().flatten().collect()))
    }

    /// From the column. What a later version may have written is nothing here.
    pub fn stored(text: &str) -> Roles {
        Roles(text.split(' ').filter_map(|name| Role::parse(name).ok().flatten()).collect())
    }

    /// For the column.
    pub fn to_stored(&self) -> String {
        self.0.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// For people and tokens: `user` first.
    pub fn names(&self) -> Vec<String> {
        std::iter::once(USER).chain(self.0.iter().map(|role| role.as_str())).map(str::to_owned).collect()
    }

    /// Whether this is one of them.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Those that `other` has not.
    pub fn without<'a>(&'a self, other: &'a Roles) -> impl Iterator<Item = Role> + 'a {
        self.0.difference(&other.0).copied()
    }

    /// The same with a role more or less.
    #[must_use]
    pub fn with(mut self, role: Role, given: bool) -> Roles {
        if given {
            self.0.insert(role);
        } else {
            self.0.remove(&role);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_stored_in_one_order_and_everybody_is_a_user() {
        let roles = Roles::parse(["support", "user", "admin", "admin"]).unwrap();
        assert_eq!(roles.to_stored(), "admin support");
        assert_eq!(roles.names(), ["user", "admin", "support"]);
        assert_eq!(Roles::stored(&roles.to_stored()), roles);
        assert_eq!(Roles::stored(""), Roles::default());
        assert_eq!(Roles::default().names(), ["user"]);
    }

    #[test]
    fn a_role_is_given_and_taken() {
        let roles = Roles::default().with(Role::Admin, true);
        assert!(roles.has(Role::Admin) && !roles.has(Role::Support));
        assert_eq!(roles.with(Role::Admin, false), Roles::default());
    }

    #[test]
    fn a_role_that_nobody_knows_is_named() {
        for name in ["root", "Admin", "", "admin support"] {
            assert!(matches!(Roles::parse([name]), Err(Error::UnknownRole(told)) if told == name));
        }
    }
}
