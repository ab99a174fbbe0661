"""The contracts in `proto/`, as messages of protocol buffers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.message import Message

ROOT = Path(__file__).parents[3]
#: The descriptors of all contracts. A check of the server holds that they are those of `proto/`.
DESCRIPTORS = ROOT / "proto" / "baseline.binpb"

RETRIEVAL = "ragward.retrieval.v1"
INGEST = "ragward.ingest.v1"


@cache
def pool() -> descriptor_pool.DescriptorPool:
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    waiting = {file.name: file for file in files.file}

    def add(name: str) -> None:
        file = waiting.pop(name, None)
        if file is None:
            return
        for dependency in file.dependency:
            add(dependency)
        pool.Add(file)

    for name in list(waiting):
        add(name)
    return pool


def services() -> list[ServiceDescriptor]:
    return [
        pool().FindServiceByName(f"{RETRIEVAL}.RetrievalService"),
        pool().FindServiceByName(f"{INGEST}.IngestService"),
    ]


def descriptor(name: str) -> Descriptor:
    return pool().FindMessageTypeByName(name)


def message(name: str) -> Message:
    kind: Any = message_factory.GetMessageClass(descriptor(name))
    made: Message = kind()
    return made
