//! Generates the gRPC messages, clients and server traits from `proto/`, without a system `protoc`, and the server trait
//! of `OpenFGA`'s API over the messages that `openfga-client` has. A library without the server has no use for them.

#[cfg(feature = "server")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    generate::all()
}

#[cfg(not(feature = "server"))]
fn main() {}

#[cfg(feature = "server")]
mod generate {
    use std::path::PathBuf;

    use tonic_prost_build::manual::{Builder, Method, Service};

    const PROTOS: [&str; 2] = ["ragward/ingest/v1/ingest.proto", "ragward/retrieval/v1/retrieval.proto"];
    /// The types of Google that the messages of `OpenFGA`'s API contain.
    const WELL_KNOWN: [&str; 3] =
        ["google/protobuf/struct.proto", "google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"];

    /// The methods of `openfga.v1.OpenFGAService`, as Rust and as gRPC name them. The messages of a method have its gRPC name
    /// with `Request` or `Response` behind it.
    const OPENFGA_METHODS: [(&str, &str); 19] = [
        ("read", "Read"),
        ("write", "Write"),
        ("check", "Check"),
        ("batch_check", "BatchCheck"),
        ("expand", "Expand"),
        ("read_authorization_models", "ReadAuthorizationModels"),
        ("read_authorization_model", "ReadAuthorizationModel"),
        ("write_authorization_model", "WriteAuthorizationModel"),
        ("write_assertions", "WriteAssertions"),
        ("read_assertions", "ReadAssertions"),
        ("read_changes", "ReadChanges"),
        ("create_store", "CreateStore"),
        ("update_store", "UpdateStore"),
        ("delete_store", "DeleteStore"),
        ("get_store", "GetStore"),
        ("list_stores", "ListStores"),
        ("streamed_list_objects", "StreamedListObjects"),
        ("list_objects", "ListObjects"),
        ("list_users", "ListUsers"),
    ];

    /// The messages that hold a model. The crate has its own form of them, because a model is read from it without a copy.
    const MODEL_MESSAGES: [&str; 3] =
        ["WriteAuthorizationModelRequest", "ReadAuthorizationModelResponse", "ReadAuthorizationModelsResponse"];

    pub(crate) fn all() -> Result<(), Box<dyn std::error::Error>> {
        let mut compiler = protox::Compiler::new(["proto"])?;
        compiler.include_imports(true).include_source_info(true).open_files(PROTOS)?;
        let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for a build script")?);
        // The compiler encodes them itself, because the messages of `prost-types` lose the HTTP routes.
        std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
        let well_known = protox::compile(WELL_KNOWN, ["proto"])?;
        std::fs::write(out.join("well_known.bin"), protox::prost::Message::encode_to_vec(&well_known))?;
        tonic_prost_build::configure()
            // A struct in our API is the type that `openfga-client` has for it, so that one conversion serves both.
            .extern_path(".google.protobuf.Struct", "::openfga_client::prost_wkt_types::Struct")
            // Only options of RPCs use these, and no program reads them as messages. So no type is made for them.
            .extern_path(".google.api", "crate::proto")
            // Maps are ordered, so that equal answers are equal bytes.
            .btree_map(".")
            .include_file("services.rs")
            .compile_fds(compiler.file_descriptor_set())?;
        Builder::new().build_client(false).compile(&[openfga_service()]);
        Ok(())
    }

    fn openfga_service() -> Service {
        let message = |name: String| {
            let of_model = MODEL_MESSAGES.contains(&name.as_str());
            let module = if of_model { "crate::proto::openfga_model" } else { "::openfga_client::client" };
            format!("{module}::{name}")
        };
        let methods = OPENFGA_METHODS.map(|(name, route)| {
            let method = Method::builder()
                .name(name)
                .route_name(route)
                .input_type(message(format!("{route}Request")))
                .output_type(message(format!("{route}Response")))
                .codec_path("::tonic_prost::ProstCodec");
            if name == "streamed_list_objects" { method.server_streaming().build() } else { method.build() }
        });
        let service = Service::builder().name("OpenFGAService").package("openfga.v1");
        methods.into_iter().fold(service, tonic_prost_build::manual::ServiceBuilder::method).build()
    }
}
