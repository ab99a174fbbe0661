import dev.openfga.sdk.api.client.OpenFgaClient;
import dev.openfga.sdk.api.client.model.ClientCheckRequest;
import dev.openfga.sdk.api.client.model.ClientListObjectsRequest;
import dev.openfga.sdk.api.client.model.ClientListUsersRequest;
import dev.openfga.sdk.api.client.model.ClientReadRequest;
import dev.openfga.sdk.api.client.model.ClientTupleKey;
import dev.openfga.sdk.api.client.model.ClientTupleKeyWithoutCondition;
import dev.openfga.sdk.api.client.model.ClientWriteRequest;
import dev.openfga.sdk.api.configuration.ApiToken;
import dev.openfga.sdk.api.configuration.ClientConfiguration;
import dev.openfga.sdk.api.configuration.Credentials;
import dev.openfga.sdk.api.model.CreateStoreRequest;
import dev.openfga.sdk.api.model.FgaObject;
import dev.openfga.sdk.api.model.Metadata;
import dev.openfga.sdk.api.model.ObjectRelation;
import dev.openfga.sdk.api.model.RelationMetadata;
import dev.openfga.sdk.api.model.RelationReference;
import dev.openfga.sdk.api.model.TypeDefinition;
import dev.openfga.sdk.api.model.UserTypeFilter;
import dev.openfga.sdk.api.model.Userset;
import dev.openfga.sdk.api.model.Usersets;
import dev.openfga.sdk.api.model.WriteAuthorizationModelRequest;
import dev.openfga.sdk.errors.FgaApiValidationError;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;

/**
 * OpenFGA's Java SDK against a server, as its quickstart does it: a store, a model, tuples, questions, errors.
 *
 * <p>FGA_API_URL is the server. FGA_API_TOKEN is sent as bearer token, if it is set.
 */
public final class Quickstart {
    private static final String DOCUMENT = "document:roadmap";

    public static void main(String[] arguments) throws Exception {
        var settings = new ClientConfiguration().apiUrl(System.getenv("FGA_API_URL"));
        var token = System.getenv("FGA_API_TOKEN");
        if (token != null) {
            settings.credentials(new Credentials(new ApiToken(token)));
        }
        var client = new OpenFgaClient(settings);
        var store = client.createStore(new CreateStoreRequest().name("java sdk")).get();
        client.setStoreId(store.getId());
        var written = client.writeAuthorizationModel(model()).get();
        var latest = client.readLatestAuthorizationModel().get().getAuthorizationModel();
        expect(latest.getId().equals(written.getAuthorizationModelId()), "the latest model");

        var anne = new ClientTupleKey().user("user:anne").relation("writer")._object(DOCUMENT);
        var bob = new ClientTupleKey().user("user:bob").relation("viewer")._object(DOCUMENT);
        client.write(new ClientWriteRequest().writes(List.of(anne, bob))).get();
        expect(allowed(client, "user:anne", "viewer"), "a writer views");
        expect(!allowed(client, "user:bob", "writer"), "a viewer does not write");

        var listed = new ClientListObjectsRequest().user("user:anne").relation("viewer").type("document");
        expect(client.listObjects(listed).get().getObjects().equals(List.of(DOCUMENT)), "the list of objects");
        var asked = new ClientListUsersRequest()
                ._object(new FgaObject().type("document").id("roadmap"))
                .relation("viewer")
                .userFilters(List.of(new UserTypeFilter().type("user")));
        expect(client.listUsers(asked).get().getUsers().size() == 2, "the list of users");
        expect(client.read(new ClientReadRequest()._object(DOCUMENT)).get().getTuples().size() == 2, "the tuples");

        try {
            allowed(client, "user:anne", "owner");
            expect(false, "the relation is not in the model");
        } catch (ExecutionException refused) {
            expect(refused.getCause() instanceof FgaApiValidationError, "a refusal: " + refused.getCause());
        }

        var revoked =
                new ClientTupleKeyWithoutCondition().user("user:bob").relation("viewer")._object(DOCUMENT);
        client.deleteTuples(List.of(revoked)).get();
        expect(!allowed(client, "user:bob", "viewer"), "what was revoked");
        client.deleteStore().get();
        System.out.println("done");
    }

    private static WriteAuthorizationModelRequest model() {
        var own = new Userset()._this(Map.of());
        var writer = new Userset().computedUserset(new ObjectRelation().relation("writer"));
        var users =
                new RelationMetadata().directlyRelatedUserTypes(List.of(new RelationReference().type("user")));
        var document = new TypeDefinition()
                .type("document")
                .relations(Map.of(
                        "writer", own, "viewer", new Userset().union(new Usersets().child(List.of(own, writer)))))
                .metadata(new Metadata().relations(Map.of("writer", users, "viewer", users)));
        return new WriteAuthorizationModelRequest()
                .schemaVersion("1.1")
                .typeDefinitions(List.of(new TypeDefinition().type("user"), document));
    }

    private static boolean allowed(OpenFgaClient client, String user, String relation) throws Exception {
        var question = new ClientCheckRequest().user(user).relation(relation)._object(DOCUMENT);
        return client.check(question).get().getAllowed();
    }

    private static void expect(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
