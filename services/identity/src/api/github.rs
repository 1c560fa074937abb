//! `GitHubService`.
use std::sync::Arc;

use secrecy::ExposeSecret;
use tonic::{Request, Response, Status};
use weft_auth::{Caller, Claims};
use weft_core::new_id;
use weft_db::Tx;
use weft_proto::identity::v1::git_hub_service_server::GitHubService;
use weft_proto::identity::v1::{
    DisconnectRequest, DisconnectResponse, FinishConnectRequest, GetConnectionStatusRequest, GetGitHubTokenRequest,
    GitHubConnection, GitHubToken, StartConnectRequest, StartConnectResponse,
};

use super::Identity;
use crate::domain::provider::{LOGIN_MS, is_redirect_uri};
use crate::domain::token::LoginState;
use crate::error::Error;
use crate::github::tokens::{expires_at, open, seal};
use crate::github::{App, GitHubError, Given, Revoke};
use crate::store::account::account_lock;
use crate::store::audit::{AuditEvent, AuditKind, audit_insert};
use crate::store::github::{
    ConnectionRow, NewToken, github_connect, github_delete, github_find, github_state_insert, github_state_take,
};

/// Longest code in bytes.
const CODE_BYTES: usize = 512;

/// The service behind `weft.identity.v1.GitHubService`.
pub struct GitHubApi(pub Arc<Identity>);

#[tonic::async_trait]
impl GitHubService for GitHubApi {
    async fn start_connect(
        &self,
        request: Request<StartConnectRequest>,
    ) -> Result<Response<StartConnectResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.start_connect(&caller, caller.user()?, &request.into_inner().redirect_uri).await?))
    }

    async fn finish_connect(
        &self,
        request: Request<FinishConnectRequest>,
    ) -> Result<Response<GitHubConnection>, Status> {
        let caller = Caller::of(&request)?;
        let row = self.0.finish_connect(&caller, caller.user()?, request.into_inner()).await?;
        Ok(Response::new(connection(row)))
    }

    async fn get_connection_status(
        &self,
        request: Request<GetConnectionStatusRequest>,
    ) -> Result<Response<GitHubConnection>, Status> {
        let caller = Caller::of(&request)?;
        let claims = caller.user()?;
        let row = github_find(&self.0.db, &claims.prd, &claims.sub).await.map_err(Error::from)?;
        Ok(Response::new(connection(row.ok_or(Error::NoGitHub)?)))
    }

    async fn disconnect(&self, request: Request<DisconnectRequest>) -> Result<Response<DisconnectResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.0.disconnect(&caller, caller.user()?).await?;
        Ok(Response::new(DisconnectResponse { ok: true }))
    }

    async fn get_git_hub_token(
        &self,
        request: Request<GetGitHubTokenRequest>,
    ) -> Result<Response<GitHubToken>, Status> {
        let caller = Caller::of(&request)?;
        let product = self.0.product(&caller)?;
        let account_id = request.into_inner().account_id;
        let token = self.0.github_token(&product.slug, &account_id).await?;
        Ok(Response::new(GitHubToken {
            token: token.access.expose_secret().to_owned(),
            login: token.login,
            expires_at: token.expires_at.unwrap_or(0),
        }))
    }
}

impl Identity {
    async fn start_connect(
        &self,
        caller: &Caller,
        claims: &Claims,
        redirect_uri: &str,
    ) -> Result<StartConnectResponse, Error> {
        let product = self.product(caller)?;
        let app = self.github.app(&product.slug).ok_or(Error::GitHubNotConfigured)?;
        if !is_redirect_uri(redirect_uri, &product.identity.redirect_uris, &self.sign_on.app_url) {
            return Err(Error::InvalidField("redirect_uri is not one of the product's, add it to its manifest"));
        }
        let state = LoginState::generate()?;
        let secrets = self.secrets.login_secrets(&state);
        let authorization_url = self.github.client.authorization_url(&app, redirect_uri, state.text(), &secrets)?;
        let expires_at = self.clock.now_ms() + LOGIN_MS;
        github_state_insert(&self.db, &claims.prd, &secrets.hash, &claims.sub, redirect_uri, expires_at).await?;
        Ok(StartConnectResponse { authorization_url, state: state.text().to_owned() })
    }

    async fn finish_connect(
        &self,
        caller: &Caller,
        claims: &Claims,
        request: FinishConnectRequest,
    ) -> Result<ConnectionRow, Error> {
        let app = self.github.app(&claims.prd).ok_or(Error::GitHubNotConfigured)?;
        let FinishConnectRequest { code, state } = request;
        let state = LoginState::parse(&state).ok_or(Error::InvalidConnect)?;
        let secrets = self.secrets.login_secrets(&state);
        let begun = github_state_take(&self.db, &claims.prd, &secrets.hash, &claims.sub, self.clock.now_ms()).await?;
        let redirect_uri = begun.ok_or(Error::InvalidConnect)?;
        if code.is_empty() || code.len() > CODE_BYTES {
            return Err(Error::InvalidConnect);
        }
        let refused = |error| if error == GitHubError::Refused { Error::InvalidConnect } else { Error::from(error) };
        let given = self.github.client.exchange(&app, &code, &redirect_uri, &secrets).await.map_err(refused)?;
        let login = self.github.client.login(&app, &given.access).await.map_err(refused)?;
        let replaced = self.connect(caller, claims, &login, &given).await?;
        if let Some(old) = replaced {
            self.give_back(&app, claims, &old, Revoke::Token).await;
        }
        github_find(&self.db, &claims.prd, &claims.sub).await?.ok_or(Error::NoGitHub)
    }

    /// Stores a connection and gives the one that it replaces.
    async fn connect(
        &self,
        caller: &Caller,
        claims: &Claims,
        login: &str,
        given: &Given,
    ) -> Result<Option<ConnectionRow>, Error> {
        let sealed = seal(&self.sign_on.keyring, &claims.prd, &claims.sub, given).await?;
        let now_ms = self.clock.now_ms();
        let token_id = new_id();
        let token = NewToken {
            token_id: &token_id,
            sealed: &sealed,
            scopes: &given.scopes,
            expires_at: expires_at(given, now_ms),
        };
        let event = event(caller, claims, AuditKind::GithubConnected, now_ms);
        self.db
            .write("connect github", async |tx: Tx| {
                account_lock(&tx, &claims.prd, &claims.sub).await?.ok_or(Error::InvalidAccessToken)?;
                let old = github_find(&tx, &claims.prd, &claims.sub).await?;
                github_connect(&tx, &claims.prd, &claims.sub, login, &token, now_ms).await?;
                audit_insert(&tx, &event).await?;
                Ok(old)
            })
            .await
    }

    async fn disconnect(&self, caller: &Caller, claims: &Claims) -> Result<(), Error> {
        let event = event(caller, claims, AuditKind::GithubDisconnected, self.clock.now_ms());
        let deleted = self
            .db
            .write("disconnect github", async |tx: Tx| {
                let deleted = github_delete(&tx, &claims.prd, &claims.sub).await?;
                if deleted.is_some() {
                    audit_insert(&tx, &event).await?;
                }
                Ok::<_, Error>(deleted)
            })
            .await?;
        if let (Some(row), Some(app)) = (deleted, self.github.app(&claims.prd)) {
            self.give_back(&app, claims, &row, Revoke::Grant).await;
        }
        Ok(())
    }

    /// Tells GitHub that a token is not to be taken any more, if it answers.
    pub(super) async fn give_back(&self, app: &App, claims: &Claims, row: &ConnectionRow, revoke: Revoke) {
        let tokens = match open(&self.sign_on.keyring, &claims.prd, &claims.sub, row).await {
            Ok(tokens) => tokens,
            Err(error) => return tracing::warn!(%error, "a GitHub token cannot be opened to be given back"),
        };
        if let Err(error) = self.github.client.revoke(app, &tokens.access, revoke).await {
            tracing::warn!(%error, account_id = claims.sub, "GitHub was not told that a token is given up");
        }
    }
}

fn event<'a>(caller: &'a Caller, claims: &'a Claims, kind: AuditKind, at: i64) -> AuditEvent<'a> {
    AuditEvent {
        session_id: Some(&claims.sid),
        ..AuditEvent::of(&claims.prd, kind, &claims.sub, &caller.request_id, at)
    }
}

fn connection(row: ConnectionRow) -> GitHubConnection {
    let scopes = row.scopes.split(',').map(str::trim).filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
    GitHubConnection { login: row.login, scopes, connected_at: row.connected_at }
}
