//! `SetupService`.
use std::sync::Arc;

use tonic::{Request, Response, Status};
use weft_auth::Caller;
use weft_core::new_id;
use weft_db::Tx;
use weft_product::Product;
use weft_proto::identity::v1::setup_service_server::SetupService;
use weft_proto::identity::v1::{AuthTokens, CompleteSetupRequest};

use super::admin::{Actor, change_account};
use super::{Identity, client_of};
use crate::domain::account::{Account, Email};
use crate::domain::administration::{RoleChange, UserChange};
use crate::domain::client::Client;
use crate::domain::password;
use crate::domain::role::{Role, Roles};
use crate::domain::token::LinkToken;
use crate::error::Error;
use crate::import::MOST_SHAPES;
use crate::operator::OPERATOR;
use crate::store::account::{CredentialRow, account_by_email, account_insert, account_set_password, account_sign_in};
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::import::shape_list;
use crate::store::setup::{setup_is_good, setup_state, setup_take};

/// The service behind `weft.identity.v1.SetupService`.
pub struct SetupApi(pub Arc<Identity>);

#[tonic::async_trait]
impl SetupService for SetupApi {
    async fn complete_setup(&self, request: Request<CompleteSetupRequest>) -> Result<Response<AuthTokens>, Status> {
        let caller = Caller::of(&request)?;
        let client = client_of(request.metadata());
        Ok(Response::new(self.0.complete_setup(&caller, &client, request.into_inner()).await?))
    }
}

/// Who becomes the administrator: nobody yet, or an account whose password was right.
enum Founder {
    New(Account, String),
    Known(CredentialRow, Option<String>),
}

impl Identity {
    /// Makes the first administrator and signs them in. The link is used up in the same transaction, in which the product
    /// still has none.
    async fn complete_setup(
        &self,
        caller: &Caller,
        client: &Client,
        request: CompleteSetupRequest,
    ) -> Result<AuthTokens, Error> {
        let product = self.password_product(caller)?;
        let slug = product.slug.as_str();
        let token = LinkToken::parse(&request.token).ok_or(Error::InvalidSetupToken)?;
        let hash = self.secrets.setup_hash(&token);
        // Before the password is hashed, which is dear, and before anything is said of the address.
        if !setup_is_good(&self.db, slug, &hash, self.clock.now_ms()).await? {
            return Err(Error::InvalidSetupToken);
        }
        let email = Email::parse(&request.email)?;
        password::check(&request.password)?;
        let founder = self.founder(caller, product, &email, request.password).await?;
        let now_ms = self.clock.now_ms();
        self.db
            .write("setup", async |tx: Tx| {
                if !setup_take(&tx, slug, &hash, now_ms).await? || setup_state(&tx, slug).await?.1 {
                    return Err(Error::InvalidSetupToken);
                }
                let account = enter(&tx, caller, product, &email, &founder, now_ms).await?;
                let change = UserChange { roles: Some(RoleChange::One(Role::Admin, true)), suspension: None };
                let actor = Actor { id: OPERATOR, session_id: None, request_id: &caller.request_id, now_ms };
                change_account(&tx, slug, &account.id, &change, &actor).await?;
                let account = Account { roles: account.roles.clone().with(Role::Admin, true), ..account };
                self.begin_session(&tx, product, &account, client, now_ms).await
            })
            .await
    }

    /// A wrong password of an account that exists counts as a failed login.
    async fn founder(
        &self,
        caller: &Caller,
        product: &Product,
        email: &Email,
        password: String,
    ) -> Result<Founder, Error> {
        let place = self.hashing.place()?;
        let slug = product.slug.as_str();
        let Some(row) = account_by_email(&self.db, slug, email).await? else {
            let account = Account {
                product: slug.to_owned(),
                id: new_id(),
                email: email.shown.clone(),
                created_at: self.clock.now_ms(),
                roles: Roles::default(),
                suspended: false,
            };
            return Ok(Founder::New(account, place.hash(password.into()).await?));
        };
        let address = self.secrets.address_hash(&email.folded);
        self.check_failures(&self.db, product, &address).await?;
        let shapes = shape_list(&self.db, slug, MOST_SHAPES).await?;
        let checked = place.verify(password.into(), Some(row.password_hash.clone()), shapes).await?;
        if checked.right {
            return Ok(Founder::Known(row, checked.better));
        }
        let event = event(caller, product, AuditKind::LoginFailed, &row.id, self.clock.now_ms());
        self.note_failure(product, &address, &event).await?;
        Err(Error::InvalidCredentials)
    }
}

/// The account that will be the administrator, locked.
async fn enter(
    tx: &Tx,
    caller: &Caller,
    product: &Product,
    email: &Email,
    founder: &Founder,
    now_ms: i64,
) -> Result<Account, Error> {
    let slug = product.slug.as_str();
    match founder {
        Founder::New(account, hash) => {
            if !account_insert(tx, account, email, hash).await? {
                return Err(Error::EmailTaken);
            }
            audit_insert(tx, &event(caller, product, AuditKind::Register, &account.id, now_ms)).await?;
            Ok(account.clone())
        }
        Founder::Known(row, better) => {
            let found = account_sign_in(tx, slug, &row.id, &row.password_hash, now_ms).await?;
            let found = found.ok_or(Error::InvalidCredentials)?;
            if found.suspended_at.is_some() {
                return Err(Error::AccountSuspended);
            }
            if let Some(better) = better {
                account_set_password(tx, slug, &row.id, Some(&row.password_hash), better).await?;
            }
            Ok(Account {
                product: slug.to_owned(),
                id: row.id.clone(),
                email: row.email.clone(),
                created_at: row.created_at,
                roles: Roles::stored(&found.roles),
                suspended: false,
            })
        }
    }
}

fn event<'a>(
    caller: &'a Caller,
    product: &'a Product,
    kind: AuditKind,
    account_id: &'a str,
    at: i64,
) -> AuditEvent<'a> {
    AuditEvent::of(&product.slug, kind, account_id, &caller.request_id, at)
}
