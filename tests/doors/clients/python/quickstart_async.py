"""The asynchronous client of OpenFGA's Python SDK: many questions at a time over one connection pool, and errors.

    FGA_API_URL=http://127.0.0.1:8980 python3 quickstart_async.py
"""

import asyncio

from openfga_sdk import CreateStoreRequest, OpenFgaClient
from openfga_sdk.client.models import ClientListObjectsRequest, ClientTuple, ClientWriteRequest
from openfga_sdk.exceptions import NotFoundException

from quickstart import configuration, model, question

QUESTIONS = 50


async def main():
    async with OpenFgaClient(configuration()) as client:
        store = await client.create_store(CreateStoreRequest(name="python async"))
    async with OpenFgaClient(configuration(store.id)) as client:
        await client.write_authorization_model(model())
        readers = [f"user:{number}" for number in range(QUESTIONS)]
        tuples = [ClientTuple(user=user, relation="viewer", object="document:roadmap") for user in readers]
        await client.write(ClientWriteRequest(writes=tuples))
        answers = await asyncio.gather(*(client.check(question(user, "viewer")) for user in [*readers, "user:carl"]))
        assert [answer.allowed for answer in answers] == [True] * QUESTIONS + [False]

        listed = ClientListObjectsRequest(user="user:1", relation="viewer", type="document")
        streamed = [item.object async for item in client.streamed_list_objects(listed)]
        assert streamed == ["document:roadmap"], streamed
        await client.delete_store()
        try:
            await client.get_store()
        except NotFoundException as refused:
            assert refused.status == 404 and refused.code == "store_id_not_found", refused
        else:
            raise AssertionError("the store was deleted")


if __name__ == "__main__":
    asyncio.run(main())
    print("done")
