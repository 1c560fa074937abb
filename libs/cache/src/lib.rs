//! Redis or in-process: rate limits and short-lived state
