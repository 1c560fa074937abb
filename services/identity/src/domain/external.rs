//! Who somebody is at an issuer that the product trusts.

/// What an issuer's token says, after it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalIdentity {
    /// The claim `iss`, exactly.
    pub issuer: String,
    /// The claim `sub`; means something together with the issuer only.
    pub subject: String,
    /// The address that the issuer tells, for people to see. It identifies nobody.
    pub email: Option<String>,
    /// Whether the issuer has shown that mail to it reaches its owner, in a claim that the owner cannot write.
    pub email_verified: bool,
    /// Whether the issuer says that this is an administrator of the product.
    pub admin: bool,
    /// Whether the operator lets this issuer say whose account an address is. Both sides must have verified it.
    pub link_by_email: bool,
}

/// What else counts where a token is exchanged without a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalToken {
    /// The session at the issuer; empty if it names none.
    pub session: String,
    /// When the token was issued, in s since 1970.
    pub issued: i64,
    /// When it expires, in s since 1970.
    pub expires: i64,
}
