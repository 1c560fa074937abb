//! What an access token says.
use std::fmt;

use serde::{Deserialize, Serialize};

/// The `iss` of every access token.
pub const ISSUER: &str = "weft";
/// The `aud` of every access token.
pub const AUDIENCE: &str = "weft";

/// The claims of an access token. What a plan allows is not among them: ask [`crate::Entitlements`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer, [`ISSUER`].
    pub iss: String,
    /// Audience, [`AUDIENCE`].
    pub aud: String,
    /// Account id.
    pub sub: String,
    /// Slug of the product the account belongs to.
    pub prd: String,
    /// Session id; a session that ends is refused by it, see [`crate::Revocations`].
    pub sid: String,
    /// Id of the token, which no other has: it is withdrawn by it, and its use reported.
    pub jti: String,
    /// E-mail address of the account; empty if it has none.
    #[serde(default)]
    pub email: String,
    /// Roles in the product, such as `admin`.
    #[serde(default)]
    pub roles: Vec<String>,
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
            .field("iat", &self.iat)
            .field("exp", &self.exp)
            .finish_non_exhaustive()
    }
}
