//! What happened to accounts, for whoever has to find out later.
use weft_core::new_id;
use weft_db::{Db, DbError, On, sql};

use crate::store::PRUNE_ROWS;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditKind {
    /// An account was created.
    Register,
    /// Somebody tried to sign in with a wrong address or password.
    LoginFailed,
    /// A session was ended by its owner.
    Logout,
    /// A refresh token was used twice and its session ended.
    RefreshReplay,
    /// One session was ended by its owner from another one.
    SessionEnded,
    /// All sessions, or all others, were ended by their owner.
    LogoutAll,
    /// A role was given; the detail names it.
    RoleGranted,
    /// A role was taken; the detail names it.
    RoleRevoked,
    /// The account was suspended; the detail is the SHA-256 of the reason.
    Suspended,
    /// It is suspended for another reason; the detail is the SHA-256 of the new one.
    SuspendReasonChanged,
    /// It was restored.
    Restored,
    /// Its owner changed the password.
    PasswordChanged,
    /// A link to a new password was sent.
    PasswordResetSent,
    /// A new password was set with such a link.
    PasswordReset,
}

impl AuditKind {
    /// As stored.
    fn as_str(self) -> &'static str {
        match self {
            AuditKind::Register => "register",
            AuditKind::LoginFailed => "login_failed",
            AuditKind::Logout => "logout",
            AuditKind::RefreshReplay => "refresh_replay",
            AuditKind::SessionEnded => "session_ended",
            AuditKind::LogoutAll => "logout_all",
            AuditKind::RoleGranted => "role_granted",
            AuditKind::RoleRevoked => "role_revoked",
            AuditKind::Suspended => "suspended",
            AuditKind::SuspendReasonChanged => "suspend_reason_changed",
            AuditKind::Restored => "restored",
            AuditKind::PasswordChanged => "password_changed",
            AuditKind::PasswordResetSent => "password_reset_sent",
            AuditKind::PasswordReset => "password_reset",
        }
    }
}

/// One event. It holds no address: what people type into an address field may be their password.
pub struct AuditEvent<'a> {
    /// Slug of the product.
    pub product: &'a str,
    /// What happened.
    pub kind: AuditKind,
    /// To whom; none if nobody has the address.
    pub account_id: Option<&'a str>,
    /// In which session.
    pub session_id: Option<&'a str>,
    /// During which request.
    pub request_id: &'a str,
    /// In ms since 1970.
    pub at: i64,
    /// Who did it, if it was somebody else: an account id, or `operator`.
    pub actor_id: Option<&'a str>,
    /// What exactly, in our own words.
    pub detail: Option<&'a str>,
}

/// Adds an event.
pub async fn audit_insert(on: &impl On, event: &AuditEvent<'_>) -> Result<(), DbError> {
    sql("INSERT INTO audit_events (id, product, kind, account_id, session_id, request_id, at, actor_id, detail) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
    .bind(new_id())
    .bind(event.product)
    .bind(event.kind.as_str())
    .bind(event.account_id)
    .bind(event.session_id)
    .bind(event.request_id)
    .bind(event.at)
    .bind(event.actor_id)
    .bind(event.detail)
    .run(on)
    .await
    .map(drop)
}

/// Deletes events at or before `before_ms`.
pub async fn audit_prune(db: &Db, before_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM audit_events WHERE id IN (SELECT id FROM audit_events WHERE at <= $1 ORDER BY at LIMIT $2)")
        .bind(before_ms)
        .bind(PRUNE_ROWS as i64)
        .run(db)
        .await
}
