/** The names of what callers give. */

import { InvalidRequest } from "./errors.js";

/**
 * Refuses names that a request does not have. TypeScript finds most of them, and JavaScript none: a misspelt `identity` would
 * ask as somebody else.
 */
export function refuseUnknown(unknown: object): void {
  const [name] = Object.keys(unknown);
  if (name !== undefined) {
    throw InvalidRequest.of(name, "is not a field of this request");
  }
}
