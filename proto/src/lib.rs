//! The wire contract of the load balancer, package `lb.v1`, and its conversion
//! to the domain of `lb-core`.
//!
//! Generated types stop here and in the gRPC shells: everything else works with
//! the checked values of `lb_core::model`.

pub mod codec;
pub mod convert;
#[cfg(feature = "document")]
pub mod document;
pub mod duration;
pub mod frame;
pub mod server;

/// Generated messages, clients and servers of package `lb.v1`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::must_use_candidate,
    clippy::needless_pass_by_value,
    clippy::use_self,
    clippy::or_fun_call,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("lb.v1");
}

/// The encoded descriptors of the contract, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The versions of the sync protocol that this build speaks, newest first.
pub const PROTOCOL_VERSIONS: [u32; 1] = [1];
