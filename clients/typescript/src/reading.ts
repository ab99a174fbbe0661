/**
 * Reads answers. A reader checks what it reads: an answer that lacks something, or has it in another form, is an error. It
 * never becomes an empty list.
 */

import { InvalidAnswer } from "./errors.js";

/** Reads one value of an answer. */
export interface Reader<T> {
  /**
   * @param value The value as `JSON.parse` gave it; `undefined` if it is not there.
   * @param place Where it stands in the answer.
   */
  read(value: unknown, place: string): T;
}

/** Reads one message of the API. */
export interface MessageReader<T> extends Reader<T> {
  /** Its full name, such as `ragward.retrieval.v1.Chunk`. */
  readonly message: string;
  /** The fields that are read, as the JSON spells them. */
  readonly fieldNames: readonly string[];
}

/** The largest number of places in which a recursive message may hold itself. The server's own bound is far below. */
const NESTED_MAX = 512;

/** Returns the error of an answer that cannot be read. It does not repeat what the answer holds. */
export function unreadable(place: string, fault: string): InvalidAnswer {
  return new InvalidAnswer(`the server's answer cannot be read: ${place} ${fault}`);
}

function readerOf<T>(kind: string, isOne: (value: unknown) => value is T): Reader<T> {
  return {
    read(value, place) {
      if (isOne(value)) {
        return value;
      }
      throw unreadable(place, value === undefined ? "is missing" : `is not ${kind}`);
    },
  };
}

export const text: Reader<string> = readerOf("a text", (value) => typeof value === "string");
export const flag: Reader<boolean> = readerOf("a boolean", (value) => typeof value === "boolean");
export const number: Reader<number> = readerOf("a number", (value) => typeof value === "number");

/** Reads a count, which is a text if it has 64 bits on the wire. */
export const count: Reader<number> = {
  read(value, place) {
    const whole = typeof value === "string" && /^\d{1,20}$/.test(value) ? Number(value) : value;
    if (typeof whole === "number" && Number.isSafeInteger(whole) && whole >= 0) {
      return whole;
    }
    throw unreadable(place, value === undefined ? "is missing" : "is not a count");
  },
};

/** Reads a moment. */
export const moment: Reader<Date> = {
  read(value, place) {
    const date = new Date(text.read(value, place));
    if (Number.isNaN(date.getTime())) {
      throw unreadable(place, "is not a moment");
    }
    return date;
  },
};

/** Reads a text that is empty if there is none. */
export const textOrNone: Reader<string | undefined> = {
  read: (value, place) => text.read(value, place) || undefined,
};

/** Reads a value that may be missing. */
export function optional<T>(of: Reader<T>): Reader<T | undefined> {
  return { read: (value, place) => (value === undefined || value === null ? undefined : of.read(value, place)) };
}

/** Reads a list. */
export function listOf<T>(of: Reader<T>): Reader<readonly T[]> {
  return {
    read(value, place) {
      if (!Array.isArray(value)) {
        throw unreadable(place, value === undefined ? "is missing" : "is not a list");
      }
      return value.map((item, index) => of.read(item, `${place}[${index}]`));
    },
  };
}

/** Reads an object whose names are data. */
export function recordOf<T>(of: Reader<T>): Reader<Readonly<Record<string, T>>> {
  return {
    read(value, place) {
      const entries = Object.entries(objectIn(value, place));
      // `fromEntries` takes every name for a name, also `__proto__`.
      return Object.fromEntries(entries.map(([name, item]) => [name, of.read(item, `${place}.${name}`)]));
    },
  };
}

/** Reads the name of a value of an enum. A name that the table lacks is an error. */
export function wordOf<T extends string>(words: Readonly<Record<string, T>>): Reader<T> {
  return {
    read(value, place) {
      const word = typeof value === "string" && Object.hasOwn(words, value) ? words[value] : undefined;
      if (word === undefined) {
        throw unreadable(place, value === undefined ? "is missing" : "is a word that this client does not know");
      }
      return word;
    },
  };
}

/** Reads the name of a value of an enum, whose first value, `unset`, says that there is none. */
export function wordOrNone<T extends string>(unset: string, words: Readonly<Record<string, T>>): Reader<T | undefined> {
  const word = wordOf(words);
  return { read: (value, place) => (value === unset ? undefined : word.read(value, place)) };
}

/** Reads a message that may hold itself. */
export function nested<T>(of: () => Reader<T>): Reader<T> {
  let depth = 0;
  return {
    read(value, place) {
      if (depth >= NESTED_MAX) {
        throw unreadable(place, "is nested too deep");
      }
      depth += 1;
      try {
        return of().read(value, place);
      } finally {
        depth -= 1;
      }
    },
  };
}

/**
 * Reads a message.
 *
 * @param message Its full name.
 * @param readers The reader of each property.
 * @param names The names of those fields that the wire spells in another way than the property.
 */
export function messageOf<T extends object>(
  message: string,
  readers: { readonly [Name in keyof T]-?: Reader<T[Name]> },
  names: { readonly [Name in keyof T]?: string } = {},
): MessageReader<T> {
  const properties = Object.keys(readers) as (keyof T & string)[];
  const fields = properties.map((property) => ({ property, field: names[property] ?? property }));
  return {
    message,
    fieldNames: fields.map(({ field }) => field),
    read(value, place) {
      const object = objectIn(value, place);
      const entries = fields.map(({ property, field }) => {
        const held = Object.hasOwn(object, field) ? object[field] : undefined;
        return [property, readers[property].read(held, place === "" ? field : `${place}.${field}`)] as const;
      });
      return Object.fromEntries(entries) as T;
    },
  };
}

function objectIn(value: unknown, place: string): Readonly<Record<string, unknown>> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Readonly<Record<string, unknown>>;
  }
  throw unreadable(place === "" ? "it" : place, value === undefined ? "is missing" : "is not an object");
}
