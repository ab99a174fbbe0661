"""Connect for Python against RetrievalService: in both encodings, compressed or not, with and without asyncio.

    RAGWARD_URL=http://127.0.0.1:8980 RAGWARD_TOKEN=... python3 connect_rpc.py

No code is generated: the descriptors say it all.
"""

import asyncio
import os
from pathlib import Path

from connectrpc.client import ConnectClient, ConnectClientSync, ResponseMetadata
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.compression.gzip import GzipCompression
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

URL = os.environ["RAGWARD_URL"]
SIGNED = {"authorization": f"Bearer {os.environ['RAGWARD_TOKEN']}"}
DESCRIPTORS = Path(__file__).parents[4] / "proto" / "baseline.binpb"
SERVICE = "ragward.retrieval.v1.RetrievalService"
WELCOME = ["document:welcome#0", "document:welcome#1"]


def methods():
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    described = pool.FindServiceByName(SERVICE).methods
    return {
        method.name: MethodInfo(
            name=method.name,
            service_name=SERVICE,
            input=message_factory.GetMessageClass(method.input_type),
            output=message_factory.GetMessageClass(method.output_type),
            idempotency_level=IdempotencyLevel.UNKNOWN,
            stream_type=StreamType.UNARY,
        )
        for method in described
    }


METHODS = methods()
RETRIEVE, RECHECK = METHODS["Retrieve"], METHODS["Recheck"]
ASKED = RETRIEVE.input(collection="handbook", text="leave", top_k=10)
KNOWN = RECHECK.input(collection="handbook", chunk_ids=[WELCOME[0], "document:salaries#0", "document:absent#0"])


def refusal(call):
    try:
        call()
    except ConnectError as refused:
        return refused
    raise AssertionError("it was answered")


def blocking(row, **options):
    client = ConnectClientSync(URL, **options)
    with ResponseMetadata() as metadata:
        answer = client.execute_unary(request=ASKED, method=RETRIEVE, headers=SIGNED)
    assert [chunk.id for chunk in answer.chunks] == WELCOME, f"{row}: {answer}"
    assert metadata.headers["ragward-consistency-token"] == answer.consistency_token, row
    rechecked = client.execute_unary(request=KNOWN, method=RECHECK, headers=SIGNED)
    assert list(rechecked.chunk_ids) == WELCOME[:1], f"{row}: {rechecked}"

    wrong = RETRIEVE.input(collection="handbook", text="leave")
    refused = refusal(lambda: client.execute_unary(request=wrong, method=RETRIEVE, headers=SIGNED))
    assert refused.code == Code.INVALID_ARGUMENT, f"{row}: {refused!r}"
    assert "google.rpc.BadRequest" in [detail.type_name for detail in refused.details], f"{row}: {refused.details}"
    with ResponseMetadata() as metadata:
        refused = refusal(lambda: client.execute_unary(request=ASKED, method=RETRIEVE))
    assert refused.code == Code.UNAUTHENTICATED, f"{row}: {refused!r}"
    assert metadata.headers["www-authenticate"].startswith("Bearer "), row


async def concurrent(row, **options):
    client = ConnectClient(URL, **options)
    call = client.execute_unary
    answers = await asyncio.gather(*(call(request=ASKED, method=RETRIEVE, headers=SIGNED) for _ in range(20)))
    for answer in answers:
        assert [chunk.id for chunk in answer.chunks] == WELCOME, f"{row}: {answer}"


def main():
    for codec in (google_protobuf_binary_codec(), google_protobuf_json_codec()):
        # The client compresses what it sends unless it is told not to.
        for compression in (GzipCompression(), None):
            row = f"{codec.name()}, {'compressed' if compression else 'plain'}"
            options = {"codec": codec, "send_compression": compression}
            blocking(row, **options)
            asyncio.run(concurrent(row, **options))


if __name__ == "__main__":
    main()
    print("done", flush=True)
    # The threads of the client's HTTP library can abort an interpreter that is being taken down, which says nothing of the door.
    os._exit(0)
