//! A service's life: configuration, telemetry, server and channels, health, drain.
//!
//! A service is made of a [`Mesh`] (who it is, whom it calls, what it runs in the background) and a
//! [`Server`] (what it answers). Everything between a socket and a generated trait is written once, here.
mod client;
pub mod config;
mod deadline;
mod error;
mod life;
mod mesh;
mod mesh_config;
mod methods;
mod neighbours;
pub mod outbound;
mod page;
mod rpc_metrics;
mod server;
pub mod telemetry;

pub use error::{RuntimeError, internal};
pub use life::{Shutdown, Tasks};
pub use mesh::Mesh;
pub use mesh_config::{Environment, JwtAlgorithm, LogFormat, MeshConfig};
pub use neighbours::{Neighbour, Neighbours};
pub use page::PageTokens;
pub use server::{Server, with_reflection};
