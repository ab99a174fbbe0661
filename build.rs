//! Generates the gRPC messages, clients and server traits from `proto/`, without a system `protoc`.

use std::path::PathBuf;

const PROTOS: [&str; 2] = ["ragward/ingest/v1/ingest.proto", "ragward/retrieval/v1/retrieval.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for a build script")?);
    std::fs::write(out.join("descriptors.bin"), protox::prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().include_file("services.rs").compile_fds(descriptors)?;
    Ok(())
}
