//! An answer that its client wants no more of. To hang up would not do: a service may go on for a client that could come
//! back, and somebody pays for that.
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tonic::Status;
use weft_auth::TIMEOUT_HEADER;
use weft_core::internal_status;

use crate::call::unary;
use crate::edge::Edge;
use crate::frames;
use crate::headers::LAST_EVENT_ID;
use crate::methods::{Method, RUN_ID_FIELD};
use crate::transcode::set_text;

/// Where a stream says in its first metadata which answer it is.
const RUN_ID: HeaderName = HeaderName::from_static("x-run-id");
/// How long the call that stops an answer may take, in s.
const WITHIN_S: u64 = 5;

/// How an answer that runs is stopped.
pub struct Stop {
    edge: Arc<Edge>,
    /// The RPC that does it.
    method: Arc<Method>,
    /// Those of the call that began the answer.
    headers: HeaderMap,
    run_id: String,
}

impl Stop {
    /// How the answer is stopped that began with this metadata; None: by hanging up.
    pub fn of(edge: &Arc<Edge>, method: &Method, headers: &HeaderMap, answer: &HeaderMap) -> Option<Stop> {
        let method = edge.methods.get(method.stopped_by.as_deref()?)?.clone();
        let run_id = answer.get(RUN_ID)?.to_str().ok()?.to_owned();
        let mut headers = headers.clone();
        headers.remove(LAST_EVENT_ID);
        headers.insert(TIMEOUT_HEADER, HeaderValue::try_from(format!("{WITHIN_S}S")).ok()?);
        Some(Stop { edge: edge.clone(), method, headers, run_id })
    }

    /// Stops it.
    pub async fn call(self) {
        if let Err(status) = self.try_call().await {
            tracing::warn!(rpc = self.method.rpc, code = ?status.code(), "an answer was not stopped");
        }
    }

    async fn try_call(&self) -> Result<(), Status> {
        let Stop { edge, method, headers, run_id } = self;
        let (tables, input) = (&*method.tables, method.input);
        let field = tables.path(input, RUN_ID_FIELD).ok_or_else(internal_status)?;
        let mut wire = frames::begin(run_id.len());
        set_text(tables, input, &field, run_id, &mut wire).map_err(|_error| internal_status())?;
        let deadline = Instant::now() + Duration::from_secs(WITHIN_S);
        let answer = unary(method, headers, frames::seal(wire), deadline, edge.limits.response_bytes).await?;
        answer.error().map_or(Ok(()), Err)
    }
}
