// OpenFGA's Go SDK against a server, as its quickstart does it: a store, a model, tuples, questions, errors.
//
//	FGA_API_URL=http://127.0.0.1:8980 go run .
//
// FGA_API_TOKEN is sent as bearer token, if it is set.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	openfga "github.com/openfga/go-sdk"
	"github.com/openfga/go-sdk/client"
	"github.com/openfga/go-sdk/credentials"
)

const document = "document:roadmap"

func configuration(storeID string) *client.ClientConfiguration {
	settings := &client.ClientConfiguration{ApiUrl: os.Getenv("FGA_API_URL"), StoreId: storeID}
	if token := os.Getenv("FGA_API_TOKEN"); token != "" {
		settings.Credentials = &credentials.Credentials{
			Method: credentials.CredentialsMethodApiToken,
			Config: &credentials.Config{ApiToken: token},
		}
	}
	return settings
}

func model() client.ClientWriteAuthorizationModelRequest {
	this := openfga.Userset{This: &map[string]interface{}{}}
	writer := openfga.Userset{ComputedUserset: &openfga.ObjectRelation{Relation: openfga.PtrString("writer")}}
	users := openfga.RelationMetadata{DirectlyRelatedUserTypes: &[]openfga.RelationReference{{Type: "user"}}}
	return client.ClientWriteAuthorizationModelRequest{
		SchemaVersion: "1.1",
		TypeDefinitions: []openfga.TypeDefinition{
			{Type: "user"},
			{
				Type: "document",
				Relations: &map[string]openfga.Userset{
					"writer": this,
					"viewer": {Union: &openfga.Usersets{Child: []openfga.Userset{this, writer}}},
				},
				Metadata: &openfga.Metadata{
					Relations: &map[string]openfga.RelationMetadata{"writer": users, "viewer": users},
				},
			},
		},
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func expect(holds bool, what string) {
	if !holds {
		log.Fatal(what)
	}
}

func main() {
	ctx := context.Background()
	fga := must(client.NewSdkClient(configuration("")))
	store := must(fga.CreateStore(ctx).Body(client.ClientCreateStoreRequest{Name: "go sdk"}).Execute())
	fga = must(client.NewSdkClient(configuration(store.Id)))
	written := must(fga.WriteAuthorizationModel(ctx).Body(model()).Execute())
	latest := must(fga.ReadLatestAuthorizationModel(ctx).Execute())
	expect(latest.AuthorizationModel.Id == written.AuthorizationModelId, "the latest model")

	tuples := []client.ClientTupleKey{
		{User: "user:anne", Relation: "writer", Object: document},
		{User: "user:bob", Relation: "viewer", Object: document},
	}
	must(fga.WriteTuples(ctx).Body(tuples).Execute())
	allowed := func(user, relation string) bool {
		question := client.ClientCheckRequest{User: user, Relation: relation, Object: document}
		return must(fga.Check(ctx).Body(question).Execute()).GetAllowed()
	}
	expect(allowed("user:anne", "viewer"), "a writer views")
	expect(!allowed("user:bob", "writer"), "a viewer does not write")

	listed := client.ClientListObjectsRequest{User: "user:anne", Relation: "viewer", Type: "document"}
	objects := must(fga.ListObjects(ctx).Body(listed).Execute()).Objects
	expect(len(objects) == 1 && objects[0] == document, "the list of objects")
	users := must(fga.ListUsers(ctx).Body(client.ClientListUsersRequest{
		Object:      openfga.FgaObject{Type: "document", Id: "roadmap"},
		Relation:    "viewer",
		UserFilters: []openfga.UserTypeFilter{{Type: "user"}},
	}).Execute()).Users
	expect(len(users) == 2, "the list of users")
	expanded := must(fga.Expand(ctx).Body(client.ClientExpandRequest{Relation: "viewer", Object: document}).Execute())
	expect(expanded.Tree.Root.Name == document+"#viewer", "the tree")
	read := must(fga.Read(ctx).Body(client.ClientReadRequest{Object: openfga.PtrString(document)}).Execute())
	expect(len(read.Tuples) == 2, "the tuples")
	changes := must(fga.ReadChanges(ctx).Body(client.ClientReadChangesRequest{Type: "document"}).Execute())
	expect(len(changes.Changes) == 2, "the changes")

	_, err := fga.Check(ctx).Body(client.ClientCheckRequest{User: "user:anne", Relation: "owner", Object: document}).Execute()
	var refused openfga.FgaApiValidationError
	expect(errors.As(err, &refused) && refused.ResponseStatusCode() == 400, fmt.Sprintf("a refusal: %v", err))

	revoked := []client.ClientTupleKeyWithoutCondition{{User: "user:bob", Relation: "viewer", Object: document}}
	must(fga.DeleteTuples(ctx).Body(revoked).Execute())
	expect(!allowed("user:bob", "viewer"), "what was revoked")
	must(fga.DeleteStore(ctx).Execute())
	fmt.Println("done")
}
