"""Hooks of Schemathesis: every other request is one that the server answers.

By chance nearly none would be: they name nobody and nothing, and have fields that exclude each other.
"""

import itertools
import json

import schemathesis

KNOWN = {
    "user": "user:anne",
    "relation": "reader",
    "object": "document:welcome",
    "guard": "document:welcome",
    "text": "about leave",
    "chunkIds": ["document:welcome#0", "document:welcome#1", "absent"],
    # Some of these requests delete.
    "documentIds": ["absent"],
}
# Fields that exclude others, or that need more than a value of their type.
LEFT_OUT = (
    "approval",
    "chunk",
    "chunks",
    "classificationMax",
    "consistency",
    "consistencyToken",
    "context",
    "contextualTuples",
    "filter",
    "hybrid",
    "metadata",
    "pageToken",
    "vector",
)

answered_body = itertools.cycle((True, False))
answered_path = itertools.cycle((True, True, False))


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict) or not next(answered_body):
        return body
    operation = context.operation.definition.raw["operationId"]
    body = {name: KNOWN.get(name, value) for name, value in body.items() if name not in LEFT_OUT}
    if operation == "RetrievalService_Retrieve":
        top_k = body.get("topK")
        top_k = 1 + top_k % 100 if isinstance(top_k, int) else 10
        body |= {"user": KNOWN["user"], "text": KNOWN["text"], "topK": top_k}
    elif operation.startswith("RetrievalService_Explain"):
        body |= {"user": KNOWN["user"], "object": KNOWN["object"]}
    elif operation in ("RetrievalService_Recheck", "RetrievalService_Fetch"):
        body |= {"user": KNOWN["user"], "chunkIds": KNOWN["chunkIds"]}
    elif operation == "IngestService_PutDocument":
        body |= {"guard": KNOWN["guard"], "text": KNOWN["text"], "title": "A title"}
    return body


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if path_parameters and next(answered_path):
        return {name: "handbook" if name == "collection" else value for name, value in path_parameters.items()}
    return path_parameters


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """The schema of a stream of lines is that of a text. Few of the texts that it allows are lines of JSON."""
    if not next(answered_body):
        return str(value).encode()
    chunk = {"id": f"{value}#0", "guard": KNOWN["guard"], "text": KNOWN["text"]}
    return json.dumps({"id": str(value), "title": "", "chunks": [chunk]}).encode()
