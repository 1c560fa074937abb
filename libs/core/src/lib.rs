//! What every crate of the mesh shares and nothing else: the reasons a call can fail for and their one
//! mapping table, ids, the clock, what is logged seldom. No I/O.
mod clock;
mod reason;
mod seldom;

pub use clock::{Clock, new_id};
pub use reason::{DOMAIN, Reason, http_status, internal_status, status_name};
pub use seldom::Seldom;
