//! What can go wrong with a service as a whole, and how an error that nobody foresaw leaves it.
use std::error::Error;

use tonic::Status;
use weft_core::internal_status;

/// Why a service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The server ended with an error.
    #[error("the server stopped")]
    Serve(#[source] tonic::transport::Error),
    /// A URL of another service cannot be used.
    #[error("the URL of {name} cannot be used: write http://host:port or https://host:port")]
    Url {
        /// Name of the other service.
        name: String,
        /// What is wrong with it.
        #[source]
        source: tonic::transport::Error,
    },
    /// A descriptor set cannot be read.
    #[error("the descriptor set cannot be served by reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// Logs or traces cannot be set up.
    #[error("telemetry cannot be set up: {0}")]
    Telemetry(String),
}

/// The status of an error that is nobody's fault but ours: a fixed sentence for the caller, the whole chain
/// of causes once in the log. Called inside a request the line carries the request id.
pub fn internal(error: impl Error) -> Status {
    tracing::error!(error = %chain(&error), "internal error");
    internal_status()
}

/// An error and all its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
