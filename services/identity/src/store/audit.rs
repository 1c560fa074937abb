//! What happened to accounts, for whoever has to find out later.
use weft_core::new_id;
use weft_db::{Db, DbError, Sql, Tx, record, sql};

use crate::domain::audit::{Entry, Hash, Seal, chain};
use crate::store::PRUNE_ROWS;

/// Declares the kinds with what is stored of each.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $stored:literal,)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum AuditKind {
            $($(#[$doc])* $kind,)*
        }

        impl AuditKind {
            /// As stored.
            pub fn as_str(self) -> &'static str {
                match self { $(AuditKind::$kind => $stored,)* }
            }

            /// Whether this is stored of one of them.
            pub fn is_stored(text: &str) -> bool {
                [$($stored),*].contains(&text)
            }
        }
    };
}

kinds! {
    /// An account was created; the detail is the issuer, if it was by a token of one.
    Register = "register",
    /// An account was brought in from elsewhere.
    Imported = "imported",
    /// Its owner wants it forgotten; here it is.
    EraseRequested = "erase_requested",
    /// Every service has forgotten it.
    Erased = "erased",
    /// Somebody tried to sign in with a wrong address or password.
    LoginFailed = "login_failed",
    /// A session was ended by its owner.
    Logout = "logout",
    /// A refresh token was used twice and its session ended.
    RefreshReplay = "refresh_replay",
    /// One session was ended by its owner from another one.
    SessionEnded = "session_ended",
    /// All sessions, or all others, were ended by their owner.
    LogoutAll = "logout_all",
    /// A role was given; the detail names it.
    RoleGranted = "role_granted",
    /// A role was taken; the detail names it.
    RoleRevoked = "role_revoked",
    /// The account was suspended; the detail is the SHA-256 of the reason.
    Suspended = "suspended",
    /// It is suspended for another reason; the detail is the SHA-256 of the new one.
    SuspendReasonChanged = "suspend_reason_changed",
    /// It was restored.
    Restored = "restored",
    /// Its owner changed the password.
    PasswordChanged = "password_changed",
    /// The account was connected to one of GitHub.
    GithubConnected = "github_connected",
    /// That connection was given up.
    GithubDisconnected = "github_disconnected",
    /// A link to a new password was sent.
    PasswordResetSent = "password_reset_sent",
    /// A new password was set with such a link.
    PasswordReset = "password_reset",
    /// It was shown that mail to the account's address reaches its owner.
    EmailVerified = "email_verified",
    /// Somebody made an organisation; the detail is its id.
    OrganisationCreated = "organisation_created",
    /// Its owner deleted an organisation; the detail is its id.
    OrganisationDeleted = "organisation_deleted",
    /// Somebody joined; the detail is the organisation and the role.
    MemberJoined = "member_joined",
    /// A member was given another role; the detail is the organisation and the role.
    MemberChanged = "member_changed",
    /// A member left or was removed; the detail is the organisation.
    MemberRemoved = "member_removed",
    /// Somebody was invited; the detail is the organisation and the invitation.
    InvitationCreated = "invitation_created",
    /// An invitation was withdrawn; the detail is the organisation and the invitation.
    InvitationRevoked = "invitation_revoked",
    /// An issuer's account was linked to this one, because both have verified the same address; the detail is the issuer.
    IdentityLinked = "identity_linked",
    /// An organisation was given a provider of its own, or another one; the detail is the organisation.
    SsoSet = "sso_set",
    /// The provider of an organisation was removed; the detail is the organisation.
    SsoDeleted = "sso_deleted",
    /// A domain was found to be an organisation's; the detail is the organisation and the domain.
    SsoDomainProven = "sso_domain_proven",
    /// An API key was made; the detail is its id.
    ApiKeyCreated = "api_key_created",
    /// An API key was given another name or budget; the detail is its id.
    ApiKeyChanged = "api_key_changed",
    /// An API key was revoked; the detail is its id.
    ApiKeyRevoked = "api_key_revoked",
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

impl<'a> AuditEvent<'a> {
    /// What happened to an account by its own doing, outside of any session, at `at` in ms since 1970.
    pub fn of(product: &'a str, kind: AuditKind, account_id: &'a str, request_id: &'a str, at: i64) -> AuditEvent<'a> {
        let account_id = Some(account_id);
        AuditEvent { product, kind, account_id, session_id: None, request_id, at, actor_id: None, detail: None }
    }
}

record! {
    /// An event with its place.
    #[derive(Clone, Debug)]
    pub struct AuditRow {
        /// UUID v7 text.
        pub id: String,
        /// Slug of the product.
        pub product: String,
        /// As stored, see [`AuditKind`].
        pub kind: String,
        /// To whom.
        pub account_id: Option<String>,
        /// In which session.
        pub session_id: Option<String>,
        /// During which request.
        pub request_id: String,
        /// In ms since 1970.
        pub at: i64,
        /// Who did it, if it was somebody else.
        pub actor_id: Option<String>,
        /// What exactly.
        pub detail: Option<String>,
        /// Its place in the product's log, from 1; 0 if it has none.
        pub number: i64,
        /// See [`chain`]; empty if it has no place.
        pub hash: Vec<u8>,
    }
}

impl AuditRow {
    /// What its digest is made of.
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            id: &self.id,
            product: &self.product,
            kind: &self.kind,
            account_id: self.account_id.as_deref(),
            session_id: self.session_id.as_deref(),
            request_id: &self.request_id,
            at: self.at,
            actor_id: self.actor_id.as_deref(),
            detail: self.detail.as_deref(),
        }
    }
}

/// The columns of [`AuditRow`].
macro_rules! audit_columns {
    () => {
        "id, product, kind, account_id, session_id, request_id, at, actor_id, detail, number, hash"
    };
}

record! {
    struct HeadRow { number: i64, hash: Vec<u8> }
}

record! {
    struct SealRow {
        pruned_number: i64,
        pruned_hash: Vec<u8>,
        number: i64,
        hash: Vec<u8>,
        mac: Vec<u8>,
    }
}

impl SealRow {
    fn split(self) -> (Seal, Vec<u8>) {
        let SealRow { pruned_number, pruned_hash, number, hash, mac } = self;
        (Seal { pruned_number, pruned_hash, number, hash }, mac)
    }
}

/// Which events a list shows; an empty text: all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Of this account.
    pub account_id: String,
    /// Of this kind.
    pub kind: String,
}

/// Adds an event at the end of its product's log.
///
/// On PostgreSQL it is one statement that waits for the end of the transaction: the head of the log is locked from there
/// to the commit and for nothing else, so that it does not matter which locks the transaction takes after this.
pub async fn audit_insert(tx: &Tx, event: &AuditEvent<'_>) -> Result<(), DbError> {
    let id = new_id();
    let entry = Entry {
        id: &id,
        product: event.product,
        kind: event.kind.as_str(),
        account_id: event.account_id,
        session_id: event.session_id,
        request_id: event.request_id,
        at: event.at,
        actor_id: event.actor_id,
        detail: event.detail,
    };
    let digest = entry.digest();
    let insert = |insert: Sql| {
        let insert = insert.bind(entry.id).bind(entry.product).bind(entry.kind).bind(entry.account_id);
        let insert = insert.bind(entry.session_id).bind(entry.request_id).bind(entry.at);
        insert.bind(entry.actor_id).bind(entry.detail)
    };
    if tx.is_postgres().await {
        let insert = insert(sql("WITH head AS (INSERT INTO audit_heads AS h (product, number, hash) \
                 VALUES ($2, 1, sha256(int8send(1::bigint) || $10)) ON CONFLICT (product) DO UPDATE \
                 SET number = h.number + 1, hash = sha256(h.hash || int8send(h.number + 1) || $10) \
                 RETURNING number, hash) \
             INSERT INTO audit_events \
                 (id, product, kind, account_id, session_id, request_id, at, actor_id, detail, number, hash) \
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, number, hash FROM head"));
        return tx.run_last(insert.bind(digest)).await;
    }
    let HeadRow { number, hash } = head_move(tx, event.product, &digest).await?;
    insert(sql("INSERT INTO audit_events \
             (id, product, kind, account_id, session_id, request_id, at, actor_id, detail, number, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"))
    .bind(number)
    .bind(hash)
    .run(tx)
    .await
    .map(drop)
}

/// Takes the next place in a log for the entry with this digest, and locks the head until the transaction ends.
async fn head_move(tx: &Tx, product: &str, digest: &[u8]) -> Result<HeadRow, DbError> {
    if tx.is_postgres().await {
        let text = "INSERT INTO audit_heads AS h (product, number, hash) \
             VALUES ($1, 1, sha256(int8send(1::bigint) || $2)) ON CONFLICT (product) DO UPDATE \
             SET number = h.number + 1, hash = sha256(h.hash || int8send(h.number + 1) || $2) RETURNING number, hash";
        return sql(text).bind(product).bind(digest).one(tx).await;
    }
    let (number, before) = audit_head(tx, product).await?.unwrap_or_default();
    let head = HeadRow { hash: chain(&before, number + 1, digest), number: number + 1 };
    sql("INSERT INTO audit_heads (product, number, hash) VALUES ($1, $2, $3) \
         ON CONFLICT (product) DO UPDATE SET number = $2, hash = $3")
    .bind(product)
    .bind(head.number)
    .bind(&head.hash)
    .run(tx)
    .await?;
    Ok(head)
}

/// Place and hash of the last event of a log.
pub async fn audit_head(tx: &Tx, product: &str) -> Result<Option<(i64, Hash)>, DbError> {
    sql("SELECT number, hash FROM audit_heads WHERE product = $1").bind(product).opt(tx).await
}

/// Events of an older version, without a place, that happened after `after_ms`; locked until the transaction ends.
pub async fn audit_unplaced(tx: &Tx, after_ms: i64, most: i64) -> Result<Vec<AuditRow>, DbError> {
    sql("SELECT id, product, kind, account_id, session_id, request_id, at, actor_id, detail, 0 AS number, \
         x'' AS hash FROM audit_events WHERE number IS NULL AND at > $1 ORDER BY at, id LIMIT $2")
    .on_postgres(
        "SELECT id, product, kind, account_id, session_id, request_id, at, actor_id, detail, 0::bigint AS number, \
         ''::bytea AS hash FROM audit_events WHERE number IS NULL AND at > $1 ORDER BY at, id LIMIT $2 FOR UPDATE",
    )
    .bind(after_ms)
    .bind(most)
    .all(tx)
    .await
}

/// Products with accounts, or with events of an older version.
pub async fn audit_products(db: &Db) -> Result<Vec<String>, DbError> {
    sql("SELECT product FROM audit_events WHERE number IS NULL UNION SELECT product FROM accounts LIMIT $1")
        .bind(PRUNE_ROWS as i64)
        .all(db)
        .await
}

/// Puts an event that is locked at the end of its product's log.
pub async fn audit_give_place(tx: &Tx, row: &AuditRow) -> Result<(), DbError> {
    let head = head_move(tx, &row.product, &row.entry().digest()).await?;
    sql("UPDATE audit_events SET number = $3, hash = $4 WHERE product = $1 AND id = $2")
        .bind(&row.product)
        .bind(&row.id)
        .bind(head.number)
        .bind(head.hash)
        .run(tx)
        .await
        .map(drop)
}

/// At most `most` events of a log after the place `after`, in their order.
pub async fn audit_page(tx: &Tx, product: &str, after: i64, most: i64) -> Result<Vec<AuditRow>, DbError> {
    sql(concat!(
        "SELECT ",
        audit_columns!(),
        " FROM audit_events WHERE product = $1 AND number > $2 ORDER BY number LIMIT $3"
    ))
    .bind(product)
    .bind(after)
    .bind(most)
    .all(tx)
    .await
}

/// Events of a log before the place `before`, newest first; one more than the page has, if there are more.
pub async fn audit_list(
    db: &Db,
    product: &str,
    filter: &AuditFilter,
    before: i64,
    size: i64,
) -> Result<Vec<AuditRow>, DbError> {
    sql(concat!(
        "SELECT ",
        audit_columns!(),
        " FROM audit_events WHERE product = $1 AND number < $2 AND ($3 = '' OR account_id = $3) \
         AND ($4 = '' OR kind = $4) ORDER BY number DESC LIMIT $5"
    ))
    .bind(product)
    .bind(before)
    .bind(&filter.account_id)
    .bind(&filter.kind)
    .bind(size + 1)
    .all(db)
    .await
}

/// Whether a product has accounts.
pub async fn audit_has_accounts(tx: &Tx, product: &str) -> Result<bool, DbError> {
    let first: Option<String> = sql("SELECT id FROM accounts WHERE product = $1 LIMIT 1").bind(product).opt(tx).await?;
    Ok(first.is_some())
}

/// Products whose log goes on after its seal, or has none.
pub async fn audit_unsealed(db: &Db) -> Result<Vec<String>, DbError> {
    sql("SELECT h.product FROM audit_heads h LEFT JOIN audit_seals s ON s.product = h.product \
         WHERE s.number IS NULL OR s.number < h.number ORDER BY h.product LIMIT $1")
    .bind(PRUNE_ROWS as i64)
    .all(db)
    .await
}

/// Products whose oldest event happened at or before `before_ms`.
pub async fn audit_due(db: &Db, before_ms: i64) -> Result<Vec<String>, DbError> {
    sql("SELECT s.product FROM audit_seals s JOIN audit_events e ON e.product = s.product \
         AND e.number = s.pruned_number + 1 WHERE e.at <= $1 ORDER BY s.product LIMIT $2")
    .bind(before_ms)
    .bind(PRUNE_ROWS as i64)
    .all(db)
    .await
}

/// Deletes the events of a log up to the place `to`.
pub async fn audit_delete(tx: &Tx, product: &str, to: i64) -> Result<u64, DbError> {
    sql("DELETE FROM audit_events WHERE product = $1 AND number <= $2").bind(product).bind(to).run(tx).await
}

/// Deletes events without a place at or before `before_ms`.
pub async fn audit_prune_unplaced(db: &Db, before_ms: i64) -> Result<u64, DbError> {
    sql("DELETE FROM audit_events WHERE id IN (SELECT id FROM audit_events WHERE number IS NULL AND at <= $1 \
         ORDER BY at, id LIMIT $2)")
    .bind(before_ms)
    .bind(PRUNE_ROWS as i64)
    .run(db)
    .await
}

/// Begins the seal of a log, unless it has one.
pub async fn seal_insert(tx: &Tx, product: &str, seal: &Seal, mac: &[u8]) -> Result<(), DbError> {
    sql("INSERT INTO audit_seals (product, pruned_number, pruned_hash, number, hash, mac) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (product) DO NOTHING")
    .bind(product)
    .bind(seal.pruned_number)
    .bind(&seal.pruned_hash)
    .bind(seal.number)
    .bind(&seal.hash)
    .bind(mac)
    .run(tx)
    .await
    .map(drop)
}

/// The seal of a log and what it is signed with.
pub async fn seal_find(tx: &Tx, product: &str) -> Result<Option<(Seal, Vec<u8>)>, DbError> {
    let row: Option<SealRow> =
        sql("SELECT pruned_number, pruned_hash, number, hash, mac FROM audit_seals WHERE product = $1")
            .bind(product)
            .opt(tx)
            .await?;
    Ok(row.map(SealRow::split))
}

/// The same, locked until the transaction ends.
pub async fn seal_lock(tx: &Tx, product: &str) -> Result<Option<(Seal, Vec<u8>)>, DbError> {
    let row: Option<SealRow> = sql("UPDATE audit_seals SET number = number WHERE product = $1 \
         RETURNING pruned_number, pruned_hash, number, hash, mac")
    .bind(product)
    .opt(tx)
    .await?;
    Ok(row.map(SealRow::split))
}

/// Writes the seal of a log; the caller holds its lock.
pub async fn seal_set(tx: &Tx, product: &str, seal: &Seal, mac: &[u8]) -> Result<(), DbError> {
    sql("UPDATE audit_seals SET pruned_number = $2, pruned_hash = $3, number = $4, hash = $5, mac = $6 \
         WHERE product = $1")
    .bind(product)
    .bind(seal.pruned_number)
    .bind(&seal.pruned_hash)
    .bind(seal.number)
    .bind(&seal.hash)
    .bind(mac)
    .run(tx)
    .await
    .map(drop)
}
