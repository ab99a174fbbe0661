//! The reflection services, which show the descriptors of all services to clients such as grpcurl.

pub(super) use openfga_client::client::FILE_DESCRIPTOR_SET as OPENFGA;
use openfga_client::prost_types::FileDescriptorSet;
use prost::{DecodeError, Message};
use prost_reflect::DescriptorPool;
use tonic_reflection::server::Builder;

use super::ServerError;
#[cfg(test)]
use super::operations::Messages;
use super::operations::RelationshipEngine;
use crate::proto::{DESCRIPTORS, WELL_KNOWN_DESCRIPTORS};

/// A builder for each version of the reflection service.
pub(super) struct Builders {
    pub(super) v1: Builder<'static>,
    pub(super) v1alpha: Builder<'static>,
}

/// Returns builders with the descriptors of all services that a server over this engine has.
pub(super) fn builders(engine: RelationshipEngine) -> Result<Builders, DecodeError> {
    let openfga = match engine {
        RelationshipEngine::Embedded => Some(openfga()?),
        RelationshipEngine::OpenFga => None,
    };
    let builder = || {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        match openfga.clone() {
            Some(openfga) => builder
                .register_encoded_file_descriptor_set(WELL_KNOWN_DESCRIPTORS)
                .register_file_descriptor_set(openfga),
            None => builder,
        }
    };
    Ok(Builders { v1: builder(), v1alpha: builder() })
}

/// Returns the descriptors of all messages that the HTTP doors translate.
///
/// # Errors
/// When the descriptors cannot be read.
pub(super) fn pool() -> Result<DescriptorPool, ServerError> {
    let mut pool = DescriptorPool::new();
    pool.decode_file_descriptor_set(WELL_KNOWN_DESCRIPTORS)?;
    pool.add_file_descriptor_set(openfga()?)?;
    pool.decode_file_descriptor_set(DESCRIPTORS)?;
    pool.decode_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)?;
    Ok(pool)
}

/// Returns `OpenFGA`'s descriptors without the imports of annotation files. The set lacks those files, so a client that
/// followed such an import would find nothing.
fn openfga() -> Result<FileDescriptorSet, DecodeError> {
    let mut set = FileDescriptorSet::decode(OPENFGA)?;
    let names: Vec<String> = set.file.iter().filter_map(|file| file.name.clone()).collect();
    for file in &mut set.file {
        file.dependency.retain(|used| used.starts_with("google/protobuf/") || names.contains(used));
        // Both fields hold positions in `dependency`, which the line above has changed.
        file.public_dependency.clear();
        file.weak_dependency.clear();
        file.source_code_info = None;
    }
    Ok(set)
}

/// Returns every RPC by its name (`package.Service/Method`), and whether its request and its answer have one message or
/// many.
#[cfg(test)]
pub(super) fn rpcs() -> std::collections::BTreeMap<String, (Messages, Messages)> {
    let sets = [
        DESCRIPTORS,
        OPENFGA,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let messages = |streams: bool| if streams { Messages::Many } else { Messages::One };
    let mut rpcs = std::collections::BTreeMap::new();
    for file in sets.into_iter().flat_map(|set| FileDescriptorSet::decode(set).unwrap().file) {
        for service in &file.service {
            for method in &service.method {
                let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                rpcs.insert(name, (messages(method.client_streaming()), messages(method.server_streaming())));
            }
        }
    }
    rpcs
}
