//! The HTTP side: what is listed, and the weather.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::future;
use serde_json::{Map, Value, json};

use super::KeyRing;
use super::code::Logins;

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// As they should be.
    Fair,
    /// With 503.
    Down,
    /// Never.
    Hang,
    /// With a redirect to where the keys are listed, which nobody may follow.
    Redirect,
}

pub(super) struct Shared {
    pub url: String,
    pub keys: Mutex<KeyRing>,
    pub weather: Mutex<Weather>,
    pub fetches: AtomicUsize,
    pub discoveries: AtomicUsize,
    /// Members of the description that are not what they would be.
    pub described: Mutex<Map<String, Value>>,
    pub logins: Mutex<Logins>,
}

impl Shared {
    pub(super) fn new(url: String, first_rsa: usize) -> Shared {
        let (fetches, discoveries) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (keys, weather) = (Mutex::new(KeyRing::new(first_rsa)), Mutex::new(Weather::Fair));
        let (described, logins) = (Mutex::default(), Mutex::default());
        Shared { url, keys, weather, fetches, discoveries, described, logins }
    }

    fn discovery(&self) -> String {
        let url = &self.url;
        let mut description = json!({
            "issuer": url,
            "jwks_uri": format!("{url}/.well-known/jwks.json"),
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
            "code_challenge_methods_supported": ["S256"],
        });
        for (name, value) in lock(&self.described).iter() {
            description[name] = value.clone();
        }
        description.to_string()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every request.
pub(super) async fn answer(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    // Supabase lists its keys below the path of its issuer.
    let keys = uri.path().ends_with("/.well-known/jwks.json");
    let discovery = uri.path() == "/.well-known/openid-configuration";
    let counter = if keys { Some(&shared.fetches) } else { discovery.then_some(&shared.discoveries) };
    if let Some(counter) = counter {
        counter.fetch_add(1, Ordering::SeqCst);
    }
    let weather = *lock(&shared.weather);
    match weather {
        Weather::Fair => {}
        Weather::Down => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Weather::Hang => future::pending().await,
        Weather::Redirect if uri.query().is_none() => {
            let to = format!("{}{}?again", shared.url, uri.path());
            return (StatusCode::FOUND, [(header::LOCATION, to)]).into_response();
        }
        Weather::Redirect => {}
    }
    let body = if keys {
        lock(&shared.keys).jwks()
    } else if discovery {
        shared.discovery()
    } else {
        return StatusCode::NOT_FOUND.into_response();
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
