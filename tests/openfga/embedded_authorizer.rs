//! The embedded authorizer against the port's suite, which a real `OpenFGA` server passes, too.

use ragward::authz::embedded::EmbeddedAuthorizer;
use ragward::language::json;
use ragward::language::validate::ValidModel;
use ragward::tuple_store::{OnConflict, RelationshipStores};

#[tokio::test]
async fn the_port_suite_holds() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let stores = RelationshipStores::open(directory.path()).expect("stores");
    let store = stores.default_store_or_new().expect("a store");
    let model = json::parse(&crate::support::authorizer_suite::model().to_string()).expect("a model");
    store.write_model(ValidModel::new(model).expect("a valid model")).expect("written");
    store.write_all(crate::support::authorizer_suite::tuples(), OnConflict::Refuse).expect("written");
    crate::support::authorizer_suite::run("embedded", &EmbeddedAuthorizer::new(stores)).await;
}
