//! Compiles the contract with protox, so that no protoc is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 6] = [
    "lb/v1/config.proto",
    "lb/v1/sync.proto",
    "lb/v1/stats.proto",
    "lb/v1/registry.proto",
    "lb/v1/fleet.proto",
    "lb/v1/lease.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=lb");
    let descriptors = protox::compile(FILES, ["."])?;
    // The reflection service answers from the same descriptors.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // `connect()` would need tonic's transport, which the contract does without.
        .build_transport(false)
        // Its buffers are as small as the messages of a stream that lasts for ever.
        .codec_path("crate::codec::CompactCodec")
        // Payloads are shared between streams, never copied.
        .bytes(".")
        // Maps in key order: the same value always has the same bytes.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
