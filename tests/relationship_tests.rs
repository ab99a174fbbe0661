//! Models, tuples and the evaluator, against `OpenFGA`'s own data and against an evaluator that shares no code with ours.
#![cfg(test)]

mod relationship {
    mod evaluator_oracle;
    mod language;
    mod sample_stores;
    mod store_files;
    mod visible_set;
}

mod support {
    pub(crate) mod dice;
    pub(crate) mod fga;
    pub(crate) mod oracle;
    pub(crate) mod random_world;
    pub(crate) mod shared_data;
}
