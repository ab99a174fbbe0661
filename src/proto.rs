//! The gRPC messages, clients and server traits of Ragward's services, generated from `proto/`. The messages' maps are
//! ordered, so equal answers have equal bytes.
#![expect(missing_docs, unreachable_pub, reason = "generated code")]
#![expect(clippy::pedantic, clippy::clone_on_ref_ptr, reason = "generated code")]
#![expect(clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated code")]

mod generated {
    include!(concat!(env!("OUT_DIR"), "/services.rs"));
}

/// The server trait of `OpenFGA`'s API; its messages are those of `openfga-client`.
pub mod openfga {
    include!(concat!(env!("OUT_DIR"), "/openfga.v1.OpenFGAService.rs"));
}

pub mod openfga_model;

pub use generated::ragward::{ingest::v1 as ingest, metadata::v1 as metadata, retrieval::v1 as retrieval};

/// The encoded descriptors of Ragward's own services and messages.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The encoded descriptors of the messages of Google that `OpenFGA`'s API uses.
pub const WELL_KNOWN_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/well_known.bin"));
