//! Frames that are no request of their own: wishes to stop, or to go on with, an answer.
use serde::Deserialize;

/// A frame that is only a wish (to stop, to go on) is shorter.
const MAX_WISH_BYTES: usize = 256;

/// Whether a frame is `{"cancel": true}`.
pub fn wants_cancel(body: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        cancel: bool,
    }
    body.len() <= MAX_WISH_BYTES && serde_json::from_str(body).is_ok_and(|Wish { cancel }| cancel)
}

/// The id in `{"last_event_id": "…"}`.
pub fn wants_resume(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        last_event_id: String,
    }
    if body.len() > MAX_WISH_BYTES {
        return None;
    }
    serde_json::from_str(body).ok().map(|Wish { last_event_id }| last_event_id)
}
