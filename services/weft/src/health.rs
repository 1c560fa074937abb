//! `weft health`: how every part of a running mesh is.
use std::io::Write;

use crate::demo;
use crate::exit::Failure;

/// Prints what the edge says about every part; fails unless all is well.
pub async fn health(url: &str) -> Result<(), Failure> {
    let url = url.trim_end_matches('/');
    let answer = demo::client()?
        .get(format!("{url}/health/detailed"))
        .send()
        .await
        .map_err(|error| Failure::unavailable(format!("{url} does not answer: {}", error.without_url())))?;
    let healthy = answer.status().is_success();
    let text = answer.text().await.map_err(Failure::unavailable)?;
    let _closed = writeln!(std::io::stdout(), "{text}");
    if healthy { Ok(()) } else { Err(Failure::unavailable("not every part is well")) }
}
