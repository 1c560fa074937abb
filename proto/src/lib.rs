//! Contracts: the `.proto` files, the Rust generated from them and their descriptor set.
//!
//! The folder layout is the package layout; `weft.billing.v1` is [`billing::v1`]. Every RPC says in its
//! `.proto` who may call it (`weft.options.v1.policy`) and, if a product's client calls it, where
//! (`google.api.http`). The edge and the policy layer read both from [`descriptors`].
pub mod json;

use std::sync::OnceLock;

use prost_reflect::DescriptorPool;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

/// What every generated client runs over: a connection to one service with its whole middleware stack.
/// Built by `weft_runtime::Mesh::channel`.
pub type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, tonic::Status>;

/// The encoded `FileDescriptorSet` of every contract, with options and comments.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// [`DESCRIPTOR_SET`], decoded once.
pub fn descriptors() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        DescriptorPool::decode(DESCRIPTOR_SET).unwrap_or_else(|error| unreachable!("built by build.rs: {error}"))
    })
}

macro_rules! package {
    ($name:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $name, ".rs"));
    };
}

pub use weft::{billing, identity, orchestrator};

/// `google`: what our contracts take from it.
pub mod google {
    /// `google.api`: raw bodies.
    pub mod api {
        package!("google.api");
    }
}

// Generated code finds `google.api` by going up from `weft.<area>.v1`.
mod weft {
    /// `weft.billing`: plans, entitlements and money.
    pub mod billing {
        /// Version 1.
        #[expect(clippy::too_many_lines, clippy::allow_attributes, reason = "generated")]
        pub mod v1 {
            package!("weft.billing.v1");
        }
    }

    /// `weft.identity`: accounts, sessions and keys.
    pub mod identity {
        /// Version 1.
        #[expect(clippy::too_many_lines, clippy::allow_attributes, reason = "generated")]
        pub mod v1 {
            package!("weft.identity.v1");
        }
    }

    /// `weft.orchestrator`: agents and models.
    pub mod orchestrator {
        /// Version 1.
        #[expect(clippy::too_many_lines, clippy::allow_attributes, clippy::large_enum_variant, reason = "generated")]
        pub mod v1 {
            package!("weft.orchestrator.v1");
        }
    }
}
