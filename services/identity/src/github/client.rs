//! The requests.
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use weft_runtime::outbound::{self, Networks, OutboundError, Reach};

use super::App;
use crate::domain::provider::LoginSecrets;

/// How long a connection to GitHub may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Largest answer in bytes.
const ANSWER_BYTES: usize = 64 * 1024;
/// Longest token in bytes.
const TOKEN_BYTES: usize = 4096;
/// Longest name of an account in bytes, and of a list of scopes.
const TEXT_BYTES: usize = 1024;
/// What the token is to be good for: repositories. A GitHub app ignores it and has the permissions of its installation.
const SCOPE: &str = "repo";
/// Who we are: GitHub answers nobody without a name.
const USER_AGENT: &str = "weft-identity";
const API_VERSION: &str = "2022-11-28";

/// Why GitHub gave nothing. Nothing of what it said is in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitHubError {
    /// It did not answer, or not so that it can be understood.
    #[error("GitHub cannot be asked")]
    Away,
    /// It does not take the code or the token.
    #[error("GitHub refused")]
    Refused,
    /// It does not take our client id and secret.
    #[error("GitHub does not take GITHUB_CLIENT_ID and GITHUB_CLIENT_SECRET")]
    WrongApp,
}

/// What GitHub gave.
pub struct Given {
    /// The token.
    pub access: SecretString,
    /// What it is renewed with, if it expires.
    pub refresh: Option<SecretString>,
    /// In how many seconds it expires.
    pub expires_in: Option<i64>,
    /// With commas between.
    pub scopes: String,
}

/// What is given back.
#[derive(Clone, Copy, Debug)]
pub enum Revoke {
    /// This token only.
    Token,
    /// All that the person has allowed us.
    Grant,
}

/// Talks to GitHub.
pub struct GitHub(outbound::Client);

#[derive(Deserialize)]
struct Answer {
    access_token: Option<SecretString>,
    refresh_token: Option<SecretString>,
    expires_in: Option<i64>,
    #[serde(default)]
    scope: String,
    error: Option<String>,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

impl GitHub {
    /// Talks over a client of its own.
    ///
    /// Errors: [`OutboundError::Client`].
    pub fn new() -> Result<GitHub, OutboundError> {
        let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT);
        outbound::client(Reach::Operator, &Networks::default(), builder.user_agent(USER_AGENT)).map(GitHub)
    }

    /// Where the browser goes to allow us what we ask for.
    ///
    /// Errors: [`GitHubError::Away`] if the base is no URL.
    pub fn authorization_url(
        &self,
        app: &App,
        redirect_uri: &str,
        state: &str,
        secrets: &LoginSecrets,
    ) -> Result<String, GitHubError> {
        let mut url = Url::parse(&format!("{}/login/oauth/authorize", app.oauth)).map_err(|_| GitHubError::Away)?;
        url.query_pairs_mut().extend_pairs([
            ("client_id", app.client_id.as_str()),
            ("redirect_uri", redirect_uri),
            ("scope", SCOPE),
            ("state", state),
            ("code_challenge", &secrets.challenge()),
            ("code_challenge_method", "S256"),
        ]);
        Ok(url.into())
    }

    /// The token for a code.
    ///
    /// Errors: any.
    pub async fn exchange(
        &self,
        app: &App,
        code: &str,
        redirect_uri: &str,
        secrets: &LoginSecrets,
    ) -> Result<Given, GitHubError> {
        let verifier = secrets.verifier.expose_secret();
        self.token(app, &[("code", code), ("redirect_uri", redirect_uri), ("code_verifier", verifier)]).await
    }

    /// Another token for what one is renewed with, which is used up by that.
    ///
    /// Errors: any.
    pub async fn renew(&self, app: &App, refresh: &SecretString) -> Result<Given, GitHubError> {
        let refresh = refresh.expose_secret();
        self.token(app, &[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await
    }

    async fn token(&self, app: &App, fields: &[(&str, &str)]) -> Result<Given, GitHubError> {
        let mut form =
            vec![("client_id", app.client_id.as_str()), ("client_secret", app.client_secret.expose_secret())];
        form.extend_from_slice(fields);
        let request = self.request(Method::POST, &format!("{}/login/oauth/access_token", app.oauth))?;
        let answer: Answer = read(send(request.header("accept", "application/json").form(&form)).await?).await?;
        // What is wrong comes with the status 200 too.
        match answer.error.as_deref() {
            Some("incorrect_client_credentials") => return Err(GitHubError::WrongApp),
            Some("bad_verification_code" | "bad_refresh_token" | "redirect_uri_mismatch") => {
                return Err(GitHubError::Refused);
            }
            Some(_) => return Err(GitHubError::Away),
            None => {}
        }
        let is_token = |token: &SecretString| {
            let text = token.expose_secret();
            (1..=TOKEN_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let sound = answer.refresh_token.as_ref().is_none_or(is_token)
            && answer.scope.len() <= TEXT_BYTES
            && answer.expires_in.is_none_or(|seconds| seconds > 0);
        let access = answer.access_token.filter(|token| sound && is_token(token)).ok_or(GitHubError::Away)?;
        let Answer { refresh_token: refresh, expires_in, scope: scopes, .. } = answer;
        Ok(Given { access, refresh, expires_in, scopes })
    }

    /// The name of the account that a token is of.
    ///
    /// Errors: [`GitHubError::Refused`], [`GitHubError::Away`].
    pub async fn login(&self, app: &App, access: &SecretString) -> Result<String, GitHubError> {
        let request = self.request(Method::GET, &format!("{}/user", app.api))?;
        let request = api(request).bearer_auth(access.expose_secret());
        let User { login } = read(send(request).await?).await?;
        if login.is_empty() || login.len() > TEXT_BYTES { Err(GitHubError::Away) } else { Ok(login) }
    }

    /// Gives a token back, so that nobody can use it any more. One that is not good any more is given back already.
    ///
    /// Errors: [`GitHubError::Away`], [`GitHubError::WrongApp`].
    pub async fn revoke(&self, app: &App, access: &SecretString, revoke: Revoke) -> Result<(), GitHubError> {
        let what = match revoke {
            Revoke::Token => "token",
            Revoke::Grant => "grant",
        };
        let url = format!("{}/applications/{}/{what}", app.api, app.client_id);
        let request = api(self.request(Method::DELETE, &url)?)
            .basic_auth(&app.client_id, Some(app.client_secret.expose_secret()))
            .json(&json!({"access_token": access.expose_secret()}));
        match send(request).await?.status().as_u16() {
            204 | 404 | 422 => Ok(()),
            401 | 403 => Err(GitHubError::WrongApp),
            _ => Err(GitHubError::Away),
        }
    }

    fn request(&self, method: Method, url: &str) -> Result<RequestBuilder, GitHubError> {
        self.0.request(method, url).map_err(|_| GitHubError::Away)
    }
}

fn api(request: RequestBuilder) -> RequestBuilder {
    request.header("accept", "application/vnd.github+json").header("x-github-api-version", API_VERSION)
}

async fn send(request: RequestBuilder) -> Result<Response, GitHubError> {
    request.send().await.map_err(|error| {
        tracing::warn!(error = %error.without_url(), "GitHub could not be asked");
        GitHubError::Away
    })
}

async fn read<T: DeserializeOwned>(mut response: Response) -> Result<T, GitHubError> {
    match response.status().as_u16() {
        200 => {}
        401 => return Err(GitHubError::Refused),
        _ => return Err(GitHubError::Away),
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| GitHubError::Away)? {
        if bytes.len() + chunk.len() > ANSWER_BYTES {
            return Err(GitHubError::Away);
        }
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes).map_err(|_| GitHubError::Away)
}
