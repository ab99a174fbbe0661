"""OpenFGA's Python SDK against a server, as its quickstart does it: a store, a model, tuples, questions, errors.

    FGA_API_URL=http://127.0.0.1:8980 python3 quickstart.py

FGA_API_TOKEN is sent as bearer token, if it is set.
"""

import os

from openfga_sdk import (
    CreateStoreRequest,
    FgaObject,
    Metadata,
    ObjectRelation,
    ReadRequestTupleKey,
    RelationMetadata,
    RelationReference,
    TypeDefinition,
    Userset,
    Usersets,
    UserTypeFilter,
    WriteAuthorizationModelRequest,
)
from openfga_sdk.client.configuration import ClientConfiguration
from openfga_sdk.client.models import (
    ClientAssertion,
    ClientBatchCheckItem,
    ClientBatchCheckRequest,
    ClientCheckRequest,
    ClientExpandRequest,
    ClientListObjectsRequest,
    ClientListRelationsRequest,
    ClientReadChangesRequest,
    ClientTuple,
    ClientWriteRequest,
)
from openfga_sdk.client.models.list_users_request import ClientListUsersRequest
from openfga_sdk.configuration import RetryParams
from openfga_sdk.credentials import CredentialConfiguration, Credentials
from openfga_sdk.exceptions import ValidationException
from openfga_sdk.sync import OpenFgaClient

DOCUMENT = "document:roadmap"
ANNE = ClientTuple(user="user:anne", relation="writer", object=DOCUMENT)
BOB = ClientTuple(user="user:bob", relation="viewer", object=DOCUMENT)


def configuration(store_id=None):
    token = os.environ.get("FGA_API_TOKEN")
    credentials = None
    if token:
        credentials = Credentials(method="api_token", configuration=CredentialConfiguration(api_token=token))
    return ClientConfiguration(
        api_url=os.environ["FGA_API_URL"],
        store_id=store_id,
        credentials=credentials,
        retry_params=RetryParams(max_retry=0),
    )


def model():
    users = RelationMetadata(directly_related_user_types=[RelationReference(type="user")])
    writers = Userset(computed_userset=ObjectRelation(object="", relation="writer"))
    document = TypeDefinition(
        type="document",
        relations={
            "writer": Userset(this={}),
            "viewer": Userset(union=Usersets(child=[Userset(this={}), writers])),
        },
        metadata=Metadata(relations={"writer": users, "viewer": users}),
    )
    return WriteAuthorizationModelRequest(
        schema_version="1.1", type_definitions=[TypeDefinition(type="user"), document]
    )


def question(user, relation):
    return ClientCheckRequest(user=user, relation=relation, object=DOCUMENT)


def main():
    with OpenFgaClient(configuration()) as client:
        store = client.create_store(CreateStoreRequest(name="python"))
    with OpenFgaClient(configuration(store.id)) as client:
        written = client.write_authorization_model(model())
        latest = client.read_latest_authorization_model().authorization_model
        assert latest.id == written.authorization_model_id

        client.write(ClientWriteRequest(writes=[ANNE, BOB]))
        assert client.check(question("user:anne", "viewer")).allowed
        assert not client.check(question("user:bob", "writer")).allowed
        checks = [
            ClientBatchCheckItem(user="user:bob", relation=relation, object=DOCUMENT, correlation_id=relation)
            for relation in ("viewer", "writer")
        ]
        result = client.batch_check(ClientBatchCheckRequest(checks=checks)).result
        assert {item.correlation_id: item.allowed for item in result} == {"viewer": True, "writer": False}

        listed = ClientListObjectsRequest(user="user:anne", relation="viewer", type="document")
        assert client.list_objects(listed).objects == [DOCUMENT]
        assert [item.object for item in client.streamed_list_objects(listed)] == [DOCUMENT]
        users = client.list_users(
            ClientListUsersRequest(
                object=FgaObject(type="document", id="roadmap"),
                relation="viewer",
                user_filters=[UserTypeFilter(type="user")],
            )
        ).users
        assert sorted(user.object.id for user in users) == ["anne", "bob"]
        relations = ClientListRelationsRequest(user="user:bob", object=DOCUMENT, relations=["viewer", "writer"])
        assert client.list_relations(relations) == ["viewer"]
        expanded = client.expand(ClientExpandRequest(relation="viewer", object=DOCUMENT))
        assert expanded.tree.root.name == f"{DOCUMENT}#viewer"
        assert len(client.read(ReadRequestTupleKey(object=DOCUMENT)).tuples) == 2
        assert len(client.read_changes(ClientReadChangesRequest(type="document")).changes) == 2

        options = {"authorization_model_id": written.authorization_model_id}
        expected = ClientAssertion(user="user:bob", relation="writer", object=DOCUMENT, expectation=False)
        client.write_assertions([expected], options)
        assert len(client.read_assertions(options).assertions) == 1

        try:
            client.check(question("user:anne", "owner"))
        except ValidationException as refused:
            assert refused.status == 400 and refused.code == "validation_error", refused
        else:
            raise AssertionError("the relation is not in the model")

        client.delete_tuples([BOB])
        assert not client.check(question("user:bob", "viewer")).allowed
        assert store.id in [listed.id for listed in client.list_stores().stores]
        client.delete_store()


if __name__ == "__main__":
    main()
    print("done")
