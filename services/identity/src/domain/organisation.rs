//! Organisations, and who may do what in them.
use crate::error::Error;

/// Longest name in characters.
const NAME_CHARS: usize = 100;
/// Most organisations that one account owns.
pub const MOST_OWNED: i64 = 10;
/// Most open invitations of an organisation.
pub const MOST_INVITATIONS: i64 = 50;
/// How long an invitation is good for, in ms.
pub const INVITATION_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// Most invitations of an organisation to one address within [`INVITED_WITHIN_MS`].
pub const MOST_INVITED: i64 = 3;
/// How long an invitation counts towards [`MOST_INVITED`], in ms.
pub const INVITED_WITHIN_MS: i64 = 24 * 60 * 60 * 1000;

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    /// Made the organisation and pays for it; there is always exactly one.
    Owner,
    /// Invites, removes and promotes.
    Admin,
    /// Is there.
    Member,
}

impl MemberRole {
    /// As stored and as clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberRole::Owner => "owner",
            MemberRole::Admin => "admin",
            MemberRole::Member => "member",
        }
    }

    /// A stored role; what nobody has stored is the least.
    pub fn stored(text: &str) -> MemberRole {
        match text {
            "owner" => MemberRole::Owner,
            "admin" => MemberRole::Admin,
            _ => MemberRole::Member,
        }
    }

    /// A role that somebody can be given.
    ///
    /// Errors: [`Error::InvalidField`].
    pub fn given(text: &str) -> Result<MemberRole, Error> {
        match text {
            "admin" => Ok(MemberRole::Admin),
            "member" => Ok(MemberRole::Member),
            _ => Err(Error::InvalidField("role must be admin or member")),
        }
    }

    /// That this role runs the organisation.
    ///
    /// Errors: [`Error::NotPermitted`].
    pub fn check_runs(self) -> Result<(), Error> {
        if self == MemberRole::Member { Err(Error::NotPermitted(ONLY_ADMINS)) } else { Ok(()) }
    }

    /// That this role owns the organisation.
    ///
    /// Errors: [`Error::NotPermitted`].
    pub fn check_owns(self) -> Result<(), Error> {
        if self == MemberRole::Owner { Ok(()) } else { Err(Error::NotPermitted("only the owner may do this")) }
    }

    /// That this role may give somebody who has the role `of` another one.
    ///
    /// Errors: [`Error::NotPermitted`].
    pub fn check_changes(self, of: MemberRole) -> Result<(), Error> {
        self.check_runs()?;
        match (self, of) {
            (_, MemberRole::Owner) => Err(Error::NotPermitted("the owner stays the owner")),
            (MemberRole::Admin, MemberRole::Admin) => Err(Error::NotPermitted("only the owner may change an admin")),
            _ => Ok(()),
        }
    }

    /// That this role may remove somebody who has the role `of`, or oneself.
    ///
    /// Errors: [`Error::NotPermitted`].
    pub fn check_removes(self, of: MemberRole, oneself: bool) -> Result<(), Error> {
        match of {
            MemberRole::Owner => Err(Error::NotPermitted("the owner cannot leave, delete the organisation instead")),
            _ if oneself => Ok(()),
            of => self.check_changes(of),
        }
    }
}

const ONLY_ADMINS: &str = "only the owner and admins may do this";

/// A name without the space around it.
///
/// Errors: [`Error::InvalidField`].
pub fn name(text: &str) -> Result<String, Error> {
    let text = text.trim();
    let good = (1..=NAME_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if good {
        Ok(text.to_owned())
    } else {
        Err(Error::InvalidField("name must have 1 to 100 characters and no control characters"))
    }
}

#[cfg(test)]
mod tests {
    use super::MemberRole::{Admin, Member, Owner};
    use super::*;

    #[test]
    fn only_the_owner_changes_an_admin_and_nobody_the_owner() {
        let may = |who: MemberRole, of| who.check_changes(of).is_ok();
        assert_eq!([may(Owner, Owner), may(Owner, Admin), may(Owner, Member)], [false, true, true]);
        assert_eq!([may(Admin, Owner), may(Admin, Admin), may(Admin, Member)], [false, false, true]);
        assert_eq!([may(Member, Owner), may(Member, Admin), may(Member, Member)], [false; 3]);
    }

    #[test]
    fn everybody_but_the_owner_may_leave() {
        let leaves = |role: MemberRole| role.check_removes(role, true).is_ok();
        assert_eq!([leaves(Owner), leaves(Admin), leaves(Member)], [false, true, true]);
        let removes = |who: MemberRole, of| who.check_removes(of, false).is_ok();
        assert_eq!([removes(Owner, Admin), removes(Admin, Admin), removes(Admin, Member)], [true, false, true]);
        assert!(!removes(Member, Member));
    }

    #[test]
    fn nobody_is_made_an_owner() {
        assert!(MemberRole::given("owner").is_err() && MemberRole::given("").is_err());
        assert_eq!(MemberRole::given("admin").unwrap(), Admin);
        for role in [Owner, Admin, Member] {
            assert_eq!(MemberRole::stored(role.as_str()), role);
        }
    }

    #[test]
    fn a_name_is_short_and_printable() {
        assert_eq!(name("  Acme GmbH ").unwrap(), "Acme GmbH");
        assert!(name(&"ü".repeat(100)).is_ok());
        for bad in ["", "  ", "a\nb", "a\0b", &"ü".repeat(101)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
