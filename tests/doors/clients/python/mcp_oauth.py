"""The official client for MCP in Python: from no token to an answer, in both revisions of the protocol.

    MCP_URL=http://127.0.0.1:8980/mcp MCP_ISSUER=... MCP_CLIENT='{"client_id": ...}' MCP_TOKENS='{"other audience": ...}' \
        python3 mcp_oauth.py

The client does all of OAuth itself. What a person does at the login page, `visit` does.
"""

import asyncio
import json
import os
from contextlib import AsyncExitStack
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client, MCPError
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

URL = os.environ["MCP_URL"]
ISSUER = os.environ["MCP_ISSUER"]
# The address to come back to. With an id and a secret, the provider knows this client; without them, the client registers.
CLIENT = json.loads(os.environ["MCP_CLIENT"])
TOKENS = json.loads(os.environ["MCP_TOKENS"])
REVISIONS = {"legacy": "2025-11-25", "auto": "2026-07-28"}
# The scope that the server asks for. This client adds `offline_access` where the provider offers it.
SCOPE = "ragward:retrieve"
CHUNKS = {"anne": ["handbook/document%3Awelcome%230", "handbook/document%3Awelcome%231"]}
CHUNKS["bob"] = [chunk.replace("welcome", "salaries") for chunk in CHUNKS["anne"]]
# A login takes four redirects.
REDIRECTS_MAX = 10


class Memory:
    """Keeps what a client keeps between runs: who it is to the provider, and its token."""

    def __init__(self, token=None):
        self.token = token and OAuthToken(access_token=token, token_type="Bearer")
        self.client = OAuthClientInformationFull(**CLIENT, issuer=ISSUER) if "client_id" in CLIENT else None

    async def get_tokens(self):
        return self.token

    async def set_tokens(self, tokens):
        self.token = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        assert self.client is None, f"the client registers again: {client_info}"
        self.client = client_info


class Person:
    """Logs in when the client asks for it."""

    def __init__(self, name):
        self.name = name
        self.asked = []
        self.back = None

    async def visit(self, url):
        """Does what a browser does: it follows redirects with cookies, up to the address of the client."""
        self.asked.append({key: values[0] for key, values in parse_qs(urlsplit(url).query).items()})
        target = httpx2.URL(url).copy_merge_params({"login_hint": self.name})
        async with httpx2.AsyncClient() as browser:
            for _ in range(REDIRECTS_MAX):
                answer = await browser.get(target)
                target = answer.url.join(answer.headers["location"])
                if str(target).startswith(CLIENT["redirect_uris"][0]):
                    self.back = dict(target.params)
                    return
        raise AssertionError("the login does not end")

    async def come_back(self):
        return AuthorizationCodeResult(code=self.back["code"], state=self.back["state"], iss=self.back["iss"])


class Wire:
    """Notes every answer of the server and of the provider."""

    def __init__(self):
        self.answers = []

    async def note(self, answer):
        self.answers.append((answer.request.method, str(answer.request.url), answer.status_code))

    def at(self, part):
        return [(method, status) for method, url, status in self.answers if part in url]


async def connected(stack, mode, wire, **options):
    http = httpx2.AsyncClient(event_hooks={"response": [wire.note]}, **options)
    transport = streamable_http_client(URL, http_client=await stack.enter_async_context(http))
    return await stack.enter_async_context(Client(transport, mode=mode))


def oauth(person, memory):
    asked = OAuthClientMetadata(redirect_uris=CLIENT["redirect_uris"], client_name="a test")
    return OAuthClientProvider(URL, asked, memory, person.visit, person.come_back)


async def uses_everything(row, client, person, other):
    tools = (await client.list_tools()).tools
    assert [tool.name for tool in tools] == ["search", "fetch"], f"{row}: {tools}"
    assert (await client.list_resources()).resources == [], row
    templates = (await client.list_resource_templates()).resource_templates
    assert [template.uri_template for template in templates] == ["ragward://{collection}/{chunk}"], f"{row}: {templates}"

    found = await client.call_tool("search", {"query": "leave"})
    results = found.structured_content["results"]
    assert not found.is_error and [result["id"] for result in results] == CHUNKS[person], f"{row}: {found}"
    assert json.loads(found.content[0].text) == found.structured_content, f"{row}: the two forms differ: {found}"
    first = results[0]
    fetched = await client.call_tool("fetch", {"id": first["id"]})
    assert not fetched.is_error and fetched.structured_content["text"] == first["text"], f"{row}: {fetched}"
    [read] = (await client.read_resource(first["url"])).contents
    assert (str(read.uri), read.text) == (first["url"], first["text"]), f"{row}: {read}"

    hidden = CHUNKS[other][0]
    answers = [await client.call_tool("fetch", {"id": identifier}) for identifier in (hidden, "handbook/absent")]
    assert all(answer.is_error for answer in answers), f"{row}: {answers}"
    assert answers[0].content == answers[1].content, f"{row}: what is hidden looks like what is not there: {answers}"
    refusals = []
    for uri in (f"ragward://{hidden}", "ragward://handbook/absent"):
        try:
            raise AssertionError(f"{row}: {await client.read_resource(uri)}")
        except MCPError as refused:
            assert refused.error.data == {"uri": uri}, f"{row}: {refused.error}"
            refusals.append((refused.error.code, refused.error.message))
    assert refusals[0] == refusals[1], f"{row}: {refusals}"
    named = await client.call_tool("search", {"query": "leave", "user": f"user:{other}"})
    assert named.is_error and "user" in named.content[0].text, f"{row}: an argument names a person: {named}"


async def logs_in(mode, name, other, token=None, first=401):
    """A client that has no token, or one that is refused, gets one from the provider and goes on."""
    row = f"{REVISIONS[mode]}, {name}, first answer {first}"
    person, wire, memory = Person(name), Wire(), Memory(token)
    async with AsyncExitStack() as stack:
        client = await connected(stack, mode, wire, auth=oauth(person, memory))
        assert client.protocol_version == REVISIONS[mode], f"{row}: {client.protocol_version}"
        await uses_everything(row, client, name, other)
    [asked] = person.asked
    assert asked["resource"] == URL and set(asked["scope"].split()) - {"offline_access"} == {SCOPE}, f"{row}: {asked}"
    assert wire.answers[0] == ("POST", URL, first), f"{row}: {wire.answers}"
    assert wire.at("/.well-known/oauth-protected-resource/mcp") == [("GET", 200)], f"{row}: {wire.answers}"
    assert ("GET", 200) in wire.at(f"{ISSUER}/.well-known/"), f"{row}: {wire.answers}"
    registered = [] if "client_id" in CLIENT else [("POST", 201)]
    assert wire.at(f"{ISSUER}/reg") == registered, f"{row}: {wire.answers}"
    assert asked["client_id"] == memory.client.client_id, f"{row}: {asked}"
    assert wire.at(f"{ISSUER}/token") == [("POST", 200)], f"{row}: {wire.answers}"
    refused = [answer for answer in wire.answers[1:] if answer[1] == URL and answer[2] in (401, 403)]
    assert not refused, f"{row}: {wire.answers}"


async def is_refused(mode, row, headers, status):
    """A client that can only show what it has does not get in."""
    row = f"{REVISIONS[mode]}, {row}"
    wire, refused = Wire(), False
    try:
        async with AsyncExitStack() as stack:
            await connected(stack, mode, wire, headers=headers)
    except* MCPError:
        refused = True
    assert refused, f"{row}: {wire.answers}"
    assert {answered for _, _, answered in wire.answers} == {status}, f"{row}: {wire.answers}"


async def main():
    for mode in REVISIONS:
        for name, other in (("anne", "bob"), ("bob", "anne")):
            await logs_in(mode, name, other)
        await logs_in(mode, "anne", "bob", token=TOKENS["other audience"])
        await logs_in(mode, "anne", "bob", token=TOKENS["other scope"], first=403)
        await is_refused(mode, "no token", {}, 401)
        for row, status in (("other audience", 401), ("other scope", 403)):
            await is_refused(mode, row, {"authorization": f"Bearer {TOKENS[row]}"}, status)


if __name__ == "__main__":
    asyncio.run(main())
    print("done")
