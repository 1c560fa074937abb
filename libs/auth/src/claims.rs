//! What an access token says.
use std::fmt;

use serde::{Deserialize, Serialize};

/// The `iss` of every access token.
pub const ISSUER: &str = "weft";
/// The `aud` of a signed-in user's access token.
pub const AUDIENCE: &str = "weft";
/// The `aud` of an API key's access token. Another one, so that whoever knows no scopes refuses the token instead of taking it
/// for a user's.
pub const KEY_AUDIENCE: &str = "weft:key";

/// The API key that a token was given for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyClaim {
    /// Its id.
    pub id: String,
    /// Micro-credits that it may spend in all; none: as many as the account has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

/// The claims of an access token. What a plan allows is not among them: ask [`crate::Entitlements`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer, [`ISSUER`].
    pub iss: String,
    /// Audience, [`AUDIENCE`] or [`KEY_AUDIENCE`].
    pub aud: String,
    /// Account id.
    pub sub: String,
    /// Slug of the product the account belongs to.
    pub prd: String,
    /// Session id, or `key:` and the id of the API key; a session that ends is refused by it, see
    /// [`crate::Revocations`].
    pub sid: String,
    /// Id of the token, which no other has: it is withdrawn by it, and its use reported.
    pub jti: String,
    /// E-mail address of the account; empty if it has none.
    #[serde(default)]
    pub email: String,
    /// Roles in the product, such as `admin`.
    #[serde(default)]
    pub roles: Vec<String>,
    /// What the token may call, for one of an API key: RPCs whose policy names one of these scopes, and no other.
    /// None: it is a signed-in user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scp: Option<Vec<String>>,
    /// The API key that it was given for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyClaim>,
    /// Issued at, in seconds since 1970.
    pub iat: i64,
    /// Valid before, in seconds since 1970.
    pub exp: i64,
}

impl Claims {
    /// Whether the account has this role in its product.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }

    /// Whether it is the token of an API key, not of a signed-in user.
    pub fn is_of_key(&self) -> bool {
        self.scp.is_some() || self.key.is_some()
    }

    /// Whether it may call what needs this scope. A signed-in user may, whatever the scope; an API key may call nothing
    /// that names none.
    pub fn has_scope(&self, scope: Option<&str>) -> bool {
        !self.is_of_key() || scope.is_some_and(|scope| self.scp.iter().flatten().any(|own| own == scope))
    }
}

/// Without the e-mail address: claims end up in log lines.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("sub", &self.sub)
            .field("prd", &self.prd)
            .field("sid", &self.sid)
            .field("jti", &self.jti)
            .field("roles", &self.roles)
            .field("scp", &self.scp)
            .field("key", &self.key)
            .field("iat", &self.iat)
            .field("exp", &self.exp)
            .finish_non_exhaustive()
    }
}
