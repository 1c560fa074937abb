//! `AdminService`.
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims};
use weft_db::Tx;
use weft_proto::billing::v1 as billing;
use weft_proto::identity::v1::admin_service_server::AdminService;
use weft_proto::identity::v1::{GetUserRequest, ListUsersRequest, ListUsersResponse, UpdateUserRequest, User};

use super::{Identity, withdraw_tokens};
use crate::domain::administration::UserChange;
use crate::domain::page::Page;
use crate::domain::role::{Role, Roles};
use crate::error::Error;
use crate::store::account::{
    AccountFilter, AccountRow, account_find, account_list, account_lock, account_set_roles, account_set_suspended,
};
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::external::external_session_is_admin;
use crate::store::revocation::RevocationRow;
use crate::store::session::session_is_open;

/// How long billing may take for its columns of a list; then the list goes without.
const BILLING_TIMEOUT: Duration = Duration::from_millis(800);

/// The service behind `weft.identity.v1.AdminService`.
pub struct AdminApi(pub Arc<Identity>);

#[tonic::async_trait]
impl AdminService for AdminApi {
    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?;
        let (rows, next_page_token) = self.0.users(claims, request.into_inner()).await?;
        let users = self.0.with_billing(&caller, claims, rows).await;
        Ok(Response::new(ListUsersResponse { users, next_page_token }))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?;
        Ok(Response::new(self.0.user(&caller, claims, &request.into_inner().user_id).await?))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> Result<Response<User>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?;
        let request = request.into_inner();
        self.0.change_user(&caller, claims, &request).await?;
        Ok(Response::new(self.0.user(&caller, claims, &request.user_id).await?))
    }
}

impl Identity {
    /// A page of accounts and the token of the next.
    async fn users(&self, claims: &Claims, request: ListUsersRequest) -> Result<(Vec<AccountRow>, String), Error> {
        let suspended = match request.status.as_str() {
            "" => None,
            "active" => Some(false),
            "suspended" => Some(true),
            _ => return Err(Error::InvalidField("status must be active or suspended, or empty for all")),
        };
        let filter = AccountFilter { email_prefix: request.email.to_lowercase(), suspended };
        let list = format!("users {} {} {} {}", claims.prd, claims.sub, request.status, filter.email_prefix);
        let after = self.secrets.page_place(&list, &request.page_token)?;
        let page = Page::new(request.page_size, request.limit, request.page, after)?;
        let (rows, more) = page.cut(account_list(&self.db, &claims.prd, &filter, &page).await?);
        let last = rows.last().filter(|_| more);
        let next = last.map(|row| self.secrets.page_token(&list, &row.id)).unwrap_or_default();
        Ok((rows, next))
    }

    async fn user(&self, caller: &Caller, claims: &Claims, id: &str) -> Result<User, Error> {
        let row = account_find(&self.db, &claims.prd, id).await?.ok_or(Error::NoAccount)?;
        self.with_billing(caller, claims, vec![row]).await.pop().ok_or(Error::NoAccount)
    }

    async fn change_user(&self, caller: &Caller, claims: &Claims, request: &UpdateUserRequest) -> Result<(), Error> {
        let change = UserChange::new(request.is_admin, &request.roles, request.suspended, &request.suspend_reason)?;
        let actor = Actor {
            id: &claims.sub,
            session_id: Some(&claims.sid),
            request_id: &caller.request_id,
            now_ms: self.clock.now_ms(),
        };
        let changed = self
            .db
            .write("change user", async |tx: Tx| {
                change_account(&tx, &claims.prd, &request.user_id, &change, &actor).await
            })
            .await?;
        self.refuse(changed.withdrawn);
        Ok(())
    }

    /// Accounts with what billing knows of them: one call for all. Without billing they come without.
    async fn with_billing(&self, caller: &Caller, claims: &Claims, rows: Vec<AccountRow>) -> Vec<User> {
        let user_ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let mut known = self.billed(caller, claims, user_ids).await;
        rows.into_iter()
            .map(|row| {
                let account = known.remove(&row.id);
                user(&claims.prd, row, account)
            })
            .collect()
    }

    async fn billed(
        &self,
        caller: &Caller,
        claims: &Claims,
        user_ids: Vec<String>,
    ) -> HashMap<String, billing::Account> {
        if user_ids.is_empty() {
            return HashMap::new();
        }
        let mut request = caller.request(billing::BatchGetAccountsRequest { product: claims.prd.clone(), user_ids });
        request.set_timeout(BILLING_TIMEOUT);
        let mut client = self.accounts.clone();
        let answer = match timeout(BILLING_TIMEOUT, client.batch_get_accounts(request)).await {
            Ok(Ok(answer)) => answer.into_inner().accounts,
            Ok(Err(status)) => {
                tracing::warn!(code = ?status.code(), "billing did not tell plans and usage, the users are listed without");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!("billing was too slow to tell plans and usage, the users are listed without");
                Vec::new()
            }
        };
        answer.into_iter().map(|account| (account.user_id.clone(), account)).collect()
    }
}

fn user(product: &str, row: AccountRow, account: Option<billing::Account>) -> User {
    let roles = Roles::stored(&row.roles);
    let status = if row.suspended_at.is_some() { "suspended" } else { "active" };
    User {
        id: row.id,
        email: row.email,
        product: product.to_owned(),
        created_at: row.created_at,
        signed_in_at: row.signed_in_at,
        display_name: row.display_name.unwrap_or_default(),
        is_admin: roles.has(Role::Admin),
        roles: roles.names(),
        status: status.to_owned(),
        suspended_at: row.suspended_at,
        suspend_reason: row.suspend_reason,
        plan: account.as_ref().map(|account| account.plan.clone()),
        subscription_status: account.as_ref().map(|account| account.subscription_status.clone()),
        tokens_today: account.as_ref().map(|account| account.tokens_today),
        sessions_today: account.map(|account| account.sessions_today),
    }
}

/// Who changes somebody's account, and when.
pub struct Actor<'a> {
    /// Account id, or who else it is.
    pub id: &'a str,
    /// The session of an administrator's token, which has to be good still when the change happens; none for who needs
    /// no token.
    pub session_id: Option<&'a str>,
    /// During which request.
    pub request_id: &'a str,
    /// In ms since 1970.
    pub now_ms: i64,
}

/// What a change came to.
pub struct Changed {
    /// Whether anything is different now.
    pub changed: bool,
    /// The access tokens that are refused from now on.
    pub withdrawn: Vec<RevocationRow>,
}

/// Changes roles and suspension of an account, writes down who did, and withdraws the access tokens that say otherwise.
///
/// Errors: [`Error::NoAccount`], [`Error::OwnAccount`]; [`Error::InvalidAccessToken`], [`Error::AccountSuspended`] for an
/// administrator who is none any more.
pub async fn change_account(
    tx: &Tx,
    product: &str,
    account_id: &str,
    change: &UserChange,
    actor: &Actor<'_>,
) -> Result<Changed, Error> {
    let row = lock(tx, product, account_id, actor).await?;
    let before = Roles::stored(&row.roles);
    if actor.id == account_id {
        change.check_own(&before)?;
    }
    let after = change.roles_after(&before);
    let was_suspended = row.suspended_at.is_some();
    let is_suspended = change.suspension.as_ref().map_or(was_suspended, Option::is_some);
    let audit = async |kind, detail| {
        let event = AuditEvent {
            actor_id: Some(actor.id),
            detail,
            ..AuditEvent::of(product, kind, account_id, actor.request_id, actor.now_ms)
        };
        audit_insert(tx, &event).await
    };
    if after != before {
        account_set_roles(tx, product, account_id, &after).await?;
        for role in before.without(&after) {
            audit(AuditKind::RoleRevoked, Some(role.as_str())).await?;
        }
        for role in after.without(&before) {
            audit(AuditKind::RoleGranted, Some(role.as_str())).await?;
        }
    }
    if let Some(reason) = &change.suspension {
        let since_ms = is_suspended.then(|| row.suspended_at.unwrap_or(actor.now_ms));
        account_set_suspended(tx, product, account_id, since_ms, reason.as_deref()).await?;
    }
    let digest = change.suspension.clone().flatten().map(|reason| reason_digest(&reason));
    let kind = match (was_suspended, is_suspended) {
        (false, true) => Some(AuditKind::Suspended),
        (true, false) => Some(AuditKind::Restored),
        (true, true) if digest.is_some() && digest != row.suspend_reason.as_deref().map(reason_digest) => {
            Some(AuditKind::SuspendReasonChanged)
        }
        _ => None,
    };
    if let Some(kind) = kind {
        audit(kind, digest.as_deref()).await?;
    }
    let changed = after != before || was_suspended != is_suspended;
    let withdrawn =
        if changed { withdraw_tokens(tx, product, account_id, is_suspended, actor.now_ms).await? } else { Vec::new() };
    Ok(Changed { changed, withdrawn })
}

/// What the audit keeps of a reason: enough to prove which one it was, nothing that somebody wrote about somebody.
fn reason_digest(reason: &str) -> String {
    format!("sha256:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(reason)))
}

/// Locks the account, and that of who changes it: what the token says of them may be old, and what they change depends on
/// what others change at the same time. In the order of their ids, so that two who change each other do not wait
/// crosswise.
async fn lock(tx: &Tx, product: &str, account_id: &str, actor: &Actor<'_>) -> Result<AccountRow, Error> {
    let Some(session_id) = actor.session_id else {
        return account_lock(tx, product, account_id).await?.ok_or(Error::NoAccount);
    };
    let (own, row) = if actor.id <= account_id {
        let own = account_lock(tx, product, actor.id).await?;
        let row = if actor.id == account_id { own.clone() } else { account_lock(tx, product, account_id).await? };
        (own, row)
    } else {
        let row = account_lock(tx, product, account_id).await?;
        (account_lock(tx, product, actor.id).await?, row)
    };
    let own = own.ok_or(Error::InvalidAccessToken)?;
    if own.suspended_at.is_some() {
        return Err(Error::AccountSuspended);
    }
    // The token with the old roles is withdrawn; its holder's guard may not have heard of that yet.
    let open = session_is_open(tx, product, actor.id, session_id, actor.now_ms).await?;
    let admin = Roles::stored(&own.roles).has(Role::Admin)
        || external_session_is_admin(tx, product, session_id, actor.now_ms).await?;
    if !open || !admin {
        return Err(Error::InvalidAccessToken);
    }
    row.ok_or(Error::NoAccount)
}
