//! `OidcService`: logins at a provider, by authorization code.
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tonic::{Request, Response, Status};
use weft_auth::{Caller, ExternalClaims};
use weft_product::{CredentialKind, Product};
use weft_proto::identity::v1::oidc_service_server::OidcService;
use weft_proto::identity::v1::{AuthTokens, FinishLoginRequest, StartLoginRequest, StartLoginResponse};
use weft_runtime::outbound::Reach;

use super::{Identity, client_of};
use crate::domain::account::Email;
use crate::domain::client::Client;
use crate::domain::external::ExternalIdentity;
use crate::domain::organisation::MemberRole;
use crate::domain::provider::{LOGIN_MS, domain_of, is_redirect_uri, issuer_of_organisation};
use crate::domain::token::LoginKey;
use crate::error::Error;
use crate::oidc::{Answer, ProviderError, Registration};
use crate::sign_on::secret_of;
use crate::store::login_state::{LoginStateRow, login_state_insert, login_state_take};
use crate::store::sso::{ConnectionRow, connection_find, connection_of_domain, domain_owner, organisation_payer};

/// Longest `code` and `iss` that a provider sends, in bytes.
const ANSWER_BYTES: usize = 4096;

/// The service behind `weft.identity.v1.OidcService`.
pub struct OidcApi(pub Arc<Identity>);

#[tonic::async_trait]
impl OidcService for OidcApi {
    async fn start_login(&self, request: Request<StartLoginRequest>) -> Result<Response<StartLoginResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.0.start_login(&caller, &request.into_inner()).await?))
    }

    async fn finish_login(&self, request: Request<FinishLoginRequest>) -> Result<Response<AuthTokens>, Status> {
        let caller = Caller::of(&request)?;
        let client = client_of(request.metadata());
        Ok(Response::new(self.0.finish_login(&caller, &client, &request.into_inner()).await?))
    }
}

/// Whose provider it is.
enum Owner {
    Product,
    Organisation(String),
}

impl Identity {
    async fn start_login(&self, caller: &Caller, request: &StartLoginRequest) -> Result<StartLoginResponse, Error> {
        let product = self.product(caller)?;
        let redirect_uri = request.redirect_uri.as_str();
        if !is_redirect_uri(redirect_uri, &product.identity.redirect_uris, &self.sign_on.app_url) {
            return Err(Error::InvalidField("redirect_uri must be one of the product's, or a page of its app"));
        }
        let (owner, registration) = if request.email.is_empty() {
            (Owner::Product, self.own_registration(product)?)
        } else {
            let email = Email::parse(&request.email)?;
            let connection = self.connection_for(product, &email).await?;
            (Owner::Organisation(connection.organisation_id.clone()), self.registration(product, connection).await?)
        };
        let found = self.sign_on.providers.find(registration.reach, &registration.issuer).await;
        let provider = found.map_err(|error| away(&registration, error))?;
        let key = LoginKey::generate()?;
        let state = self.secrets.login_state(&key);
        let secrets = self.secrets.login_secrets(&state);
        let begun = LoginStateRow {
            organisation_id: if let Owner::Organisation(id) = owner { id } else { String::new() },
            issuer: registration.issuer,
            client_id: registration.client_id,
            redirect_uri: redirect_uri.to_owned(),
        };
        let expires_at = self.clock.now_ms() + LOGIN_MS;
        login_state_insert(&self.db, &product.slug, &secrets.hash, &begun, expires_at).await?;
        let (client_id, state) = (&begun.client_id, state.text());
        let authorization_url = provider.authorization_url(client_id, redirect_uri, state, &secrets, &request.email);
        let (state, login_key) = (state.to_owned(), key.text().to_owned());
        Ok(StartLoginResponse { authorization_url, state, login_key })
    }

    /// The state is used up before anything is asked of the provider: of many who come with it, one goes on. Who has the
    /// state and not the key of its login uses nothing up.
    async fn finish_login(
        &self,
        caller: &Caller,
        client: &Client,
        request: &FinishLoginRequest,
    ) -> Result<AuthTokens, Error> {
        let product = self.product(caller)?;
        for (field, text) in [("code", &request.code), ("state", &request.state), ("login_key", &request.login_key)] {
            if text.is_empty() {
                return Err(Error::Missing(field));
            }
        }
        let fits = request.code.len() <= ANSWER_BYTES && request.iss.len() <= ANSWER_BYTES;
        let key = LoginKey::parse(&request.login_key).filter(|_| fits).ok_or(Error::LoginRefused)?;
        let state = self.secrets.login_state(&key);
        if state.text() != request.state {
            return Err(Error::LoginRefused);
        }
        let secrets = self.secrets.login_secrets(&state);
        let begun = login_state_take(&self.db, &product.slug, &secrets.hash, self.clock.now_ms()).await?;
        let begun = begun.ok_or(Error::LoginRefused)?;
        let organisation_id = Some(begun.organisation_id.as_str()).filter(|id| !id.is_empty());
        let registration = match organisation_id {
            None => self.own_registration(product)?,
            Some(id) => {
                let connection = connection_find(&self.db, &product.slug, id).await?.ok_or(Error::LoginRefused)?;
                self.registration(product, connection).await?
            }
        };
        if (&registration.issuer, &registration.client_id) != (&begun.issuer, &begun.client_id) {
            return Err(Error::LoginRefused);
        }
        let answer =
            Answer { code: &request.code, issuer: &request.iss, redirect_uri: &begun.redirect_uri, secrets: &secrets };
        let claims = self.sign_on.providers.claims(&registration, &answer).await;
        let claims = claims.map_err(|error| away(&registration, error))?;
        let identity = match organisation_id {
            None => self.issuers.of_kind(product, CredentialKind::Oidc)?.identity(claims),
            Some(id) => {
                let identity = self.identity_of_organisation(product, id, &begun.issuer, claims).await?;
                self.let_in(caller, product, id, &identity).await?;
                identity
            }
        };
        self.begin_external(caller, client, product, &identity).await
    }

    /// Ourselves at the product's own provider.
    fn own_registration(&self, product: &Product) -> Result<Registration, Error> {
        let trusted = self.issuers.of_kind(product, CredentialKind::Oidc).map_err(|_| Error::NoProvider)?;
        trusted.registration().ok_or(Error::NoProvider)
    }

    /// The provider for an address: of the organisation that has proven its domain, while its plan includes that. What is
    /// missing is not said.
    async fn connection_for(&self, product: &Product, email: &Email) -> Result<ConnectionRow, Error> {
        let found = connection_of_domain(&self.db, &product.slug, domain_of(email)).await?;
        let connection = found.ok_or(Error::NoProvider)?;
        let payer = organisation_payer(&self.db, &product.slug, &connection.organisation_id).await?;
        let payer = payer.ok_or(Error::NoProvider)?;
        if self.has_sso(&product.slug, &payer).await? { Ok(connection) } else { Err(Error::NoProvider) }
    }

    /// Ourselves at the provider of an organisation.
    async fn registration(&self, product: &Product, connection: ConnectionRow) -> Result<Registration, Error> {
        let ConnectionRow { organisation_id, issuer, client_id, key_id, sealed, .. } = connection;
        let bound_to = secret_of(&product.slug, &organisation_id);
        let secret = self.sign_on.keyring.unseal(&bound_to, &key_id, &sealed).await?;
        let secret = String::from_utf8(secret.expose_secret().to_vec()).map_err(|_| Error::Seal)?;
        let client_secret = Some(SecretString::from(secret));
        Ok(Registration { reach: Reach::Public, issuer, client_id, client_secret, keys: None })
    }

    /// Who somebody is at the provider of an organisation, if the address is verified and of one of its domains. What the
    /// provider says else is not believed: an organisation chooses it.
    async fn identity_of_organisation(
        &self,
        product: &Product,
        organisation_id: &str,
        issuer: &str,
        claims: ExternalClaims,
    ) -> Result<ExternalIdentity, Error> {
        let email = claims.text("email").filter(|_| claims.is_true("email_verified"));
        let email =
            email.and_then(|text| Email::parse(text).ok()).ok_or_else(|| refused("the email is not verified"))?;
        let owner = domain_owner(&self.db, &product.slug, domain_of(&email)).await?;
        if owner.as_deref() != Some(organisation_id) {
            return Err(refused("the email is not of a domain that the organisation has proven"));
        }
        Ok(ExternalIdentity {
            issuer: issuer_of_organisation(organisation_id, issuer),
            subject: claims.subject,
            email: Some(email.shown),
            email_verified: true,
            admin: false,
            link_by_email: false,
        })
    }

    /// Makes somebody a member of the organisation at whose provider they signed in; there is no session before.
    async fn let_in(
        &self,
        caller: &Caller,
        product: &Product,
        organisation_id: &str,
        identity: &ExternalIdentity,
    ) -> Result<(), Error> {
        let account_id = self.external_account_id(caller, product, identity).await?;
        self.join(caller, &product.slug, organisation_id, &account_id, MemberRole::Member).await?;
        Ok(())
    }
}

fn refused(why: &'static str) -> Error {
    tracing::info!(why, "a login at an identity provider was refused");
    Error::LoginRefused
}

/// What a caller learns of a provider's trouble; what exactly it is, the log.
fn away(registration: &Registration, error: ProviderError) -> Error {
    match error {
        ProviderError::Refused(why) => refused(why),
        error => {
            tracing::warn!(issuer = registration.issuer, %error, "an identity provider is of no use");
            Error::IssuerUnavailable
        }
    }
}
