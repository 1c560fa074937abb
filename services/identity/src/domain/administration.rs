//! What an administrator may do to an account.
use crate::domain::role::{Role, Roles};
use crate::error::Error;

/// Longest reason of a suspension in bytes.
const REASON_BYTES: usize = 500;

/// What becomes of the roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleChange {
    /// One is given or taken.
    One(Role, bool),
    /// These from now on.
    All(Roles),
}

/// What to change about an account. None: as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserChange {
    /// The roles.
    pub roles: Option<RoleChange>,
    /// Suspended for a reason, or restored with none.
    pub suspension: Option<Option<String>>,
}

impl UserChange {
    /// From the fields of a request.
    ///
    /// Errors: [`Error::InvalidField`], [`Error::UnknownRole`].
    pub fn new(
        is_admin: Option<bool>,
        roles: &[String],
        suspended: Option<bool>,
        reason: &str,
    ) -> Result<UserChange, Error> {
        let roles = match (is_admin, roles) {
            (None, []) => None,
            (Some(given), []) => Some(RoleChange::One(Role::Admin, given)),
            (None, names) => Some(RoleChange::All(Roles::parse(names.iter().map(String::as_str))?)),
            (Some(_), _) => return Err(Error::InvalidField("send is_admin or roles, not both")),
        };
        let reason = reason.trim();
        let suspension = match suspended {
            None if !reason.is_empty() => return Err(Error::InvalidField("suspend_reason needs suspended: true")),
            None => None,
            Some(false) => Some(None),
            Some(true) if reason.is_empty() || reason.len() > REASON_BYTES || reason.contains('\0') => {
                return Err(Error::InvalidField("suspend_reason must have 1 to 500 bytes"));
            }
            Some(true) => Some(Some(reason.to_owned())),
        };
        Ok(UserChange { roles, suspension })
    }

    /// The roles afterwards.
    pub fn roles_after(&self, before: &Roles) -> Roles {
        match &self.roles {
            None => before.clone(),
            Some(RoleChange::One(role, given)) => before.clone().with(*role, *given),
            Some(RoleChange::All(roles)) => roles.clone(),
        }
    }

    /// That nobody locks themselves out; `before` are the roles of their own account.
    ///
    /// Errors: [`Error::OwnAccount`].
    pub fn check_own(&self, before: &Roles) -> Result<(), Error> {
        let loses_admin = before.has(Role::Admin) && !self.roles_after(before).has(Role::Admin);
        let suspends = matches!(self.suspension, Some(Some(_)));
        if loses_admin || suspends { Err(Error::OwnAccount) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(
        is_admin: Option<bool>,
        roles: &[&str],
        suspended: Option<bool>,
        reason: &str,
    ) -> Result<UserChange, Error> {
        let roles: Vec<String> = roles.iter().map(|name| (*name).to_owned()).collect();
        UserChange::new(is_admin, &roles, suspended, reason)
    }

    #[test]
    fn roles_are_given_one_by_one_or_all_at_once() {
        let before = Roles::stored("admin reviewer");
        let after =
            |is_admin, roles: &[&str]| change(is_admin, roles, None, "").unwrap().roles_after(&before).to_stored();
        assert_eq!(after(None, &[]), "admin reviewer");
        assert_eq!(after(Some(false), &[]), "reviewer");
        assert_eq!(after(None, &["support"]), "support");
        assert_eq!(after(None, &["user"]), "");
        assert!(change(Some(true), &["admin"], None, "").is_err());
        assert!(change(None, &["root"], None, "").is_err());
    }

    #[test]
    fn a_suspension_has_a_reason() {
        assert_eq!(change(None, &[], Some(true), " spam ").unwrap().suspension, Some(Some("spam".to_owned())));
        assert_eq!(change(None, &[], Some(false), "").unwrap().suspension, Some(None));
        let (longest, longer) = ("x".repeat(500), "x".repeat(501));
        assert!(change(None, &[], Some(true), &longest).is_ok());
        for reason in ["", "  ", "a\0b", &longer] {
            assert!(change(None, &[], Some(true), reason).is_err());
        }
        assert!(change(None, &[], None, "spam").is_err());
    }

    #[test]
    fn nobody_locks_themselves_out() {
        let own = Roles::stored("admin");
        let check = |change: Result<UserChange, Error>| change.unwrap().check_own(&own).is_ok();
        assert!(check(change(Some(true), &[], None, "")));
        assert!(check(change(None, &["admin", "support"], Some(false), "")));
        assert!(!check(change(Some(false), &[], None, "")));
        assert!(!check(change(None, &["user"], None, "")));
        assert!(!check(change(None, &[], Some(true), "holiday")));
    }
}
