//! The embedded engine and the Qdrant adapter, behind the port `vector_store`.
#![cfg(test)]

mod vector_store {
    mod exact_store;
    mod languages;
    mod one_version;
    mod qdrant_attach;
    mod qdrant_faults;
    mod qdrant_numbers;
    mod qdrant_retrieval;
    mod qdrant_store;
    mod qdrant_texts;
    mod qdrant_vector_names;
}

mod support {
    pub(crate) mod brute_force;
    pub(crate) mod dice;
    pub(crate) mod faulty_server;
    pub(crate) mod held_port;
    pub(crate) mod language_rows;
    pub(crate) mod qdrant_process;
    pub(crate) mod qdrant_server;
    pub(crate) mod qdrant_servers;
    pub(crate) mod questions;
    pub(crate) mod shared_data;
    pub(crate) mod vector_store_suite;
}
