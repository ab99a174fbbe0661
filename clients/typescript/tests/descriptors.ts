/** The descriptors of the API. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { type DescEnum, type DescMessage, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

import { ROOT } from "./world.js";

const file = readFileSync(join(ROOT, "proto/baseline.binpb"));

export const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, file));

export function messageNamed(name: string): DescMessage {
  const found = registry.getMessage(name);
  assert.ok(found, `there is a message ${name}`);
  return found;
}

export function enumNamed(name: string): DescEnum {
  const found = registry.getEnum(name);
  assert.ok(found, `there is an enum ${name}`);
  return found;
}
