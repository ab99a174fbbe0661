// Gives the conformance suite for MCP a token, since it knows of none: each of its requests carries it, and is otherwise sent as
// the suite wrote it.
//
//     MCP_TOKEN=... node --import ./bearer.mjs node_modules/@modelcontextprotocol/conformance/dist/index.js server --url ...
import { getGlobalDispatcher, setGlobalDispatcher } from "undici";

/** Headers come as a list of names and values in turn, or as what names its values. */
function signed(headers = {}) {
  const token = ["authorization", `Bearer ${process.env.MCP_TOKEN}`];
  if (Array.isArray(headers)) return [...headers, ...token];
  const entries = Symbol.iterator in headers ? [...headers] : Object.entries(headers);
  return Object.fromEntries([...entries, token]);
}

const sign = (dispatch) => (request, handler) => dispatch({ ...request, headers: signed(request.headers) }, handler);
setGlobalDispatcher(getGlobalDispatcher().compose(sign));
