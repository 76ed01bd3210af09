import { PeeringError } from "../base/errors.js";
import type { Peering, StoredState } from "../peering/peering.js";
import type { SecretsRow } from "../peering/secrets.js";
import type { RemoteInfo } from "../wire/messages.js";

// The stored form is JSON: records are small, few and worth reading in a dump. A record holds no `modifyIndex`, and no
// `createIndex` before it was changed once: both are then the revision of its entry.

/** The value of a record's entry. */
export function encodePeering(peering: Peering): Uint8Array {
  const { createIndex, modifyIndex: _, ...fields } = peering;
  return encode(createIndex === 0n ? fields : { ...fields, createIndex: createIndex.toString() });
}

/** @throws {PeeringError} `storage-failed`: it is no record of this id. */
export function decodePeering(id: string, value: Uint8Array, revision: bigint): Peering {
  const fields = new Fields(value);
  const state = fields.text("state");
  if (!isStoredState(state)) throw fields.corrupt("state");
  const deletedAt = fields.optional("deletedAt", (name) => fields.number(name));
  if ((deletedAt !== undefined) !== (state === "deleting")) throw fields.corrupt("deletedAt");
  const createIndex = fields.optional("createIndex", (name) => fields.index(name));
  if (id === "" || fields.text("id") !== id) throw fields.corrupt("id");
  const name = fields.text("name");
  if (name === "") throw fields.corrupt("name");
  return {
    id,
    name,
    state,
    ...(deletedAt === undefined ? {} : { deletedAt }),
    meta: fields.textMap("meta"),
    peerId: fields.text("peerId"),
    peerCaPems: fields.texts("peerCaPems"),
    peerServerName: fields.text("peerServerName"),
    peerServerAddresses: fields.texts("peerServerAddresses"),
    manualServerAddresses: fields.texts("manualServerAddresses"),
    remote: decodeRemote(fields.inner("remote")),
    createIndex: createIndex ?? revision,
    modifyIndex: revision,
  };
}

/** The value of a secrets row's entry: digests, and secrets that the secret box sealed. */
export function encodeSecrets(row: SecretsRow): Uint8Array {
  if (row.role === "acceptor") return encode(row);
  return encode({ role: row.role, sealedActive: Buffer.from(row.sealedActive).toString("base64") });
}

/** @throws {PeeringError} `storage-failed`: it holds no secrets; the message reveals nothing of its content. */
export function decodeSecrets(value: Uint8Array): SecretsRow {
  const fields = new Fields(value);
  const role = fields.text("role");
  if (role === "dialer") {
    const sealedActive = new Uint8Array(Buffer.from(fields.text("sealedActive"), "base64"));
    if (sealedActive.length === 0) throw fields.corrupt("sealedActive");
    return { role, sealedActive };
  }
  if (role !== "acceptor") throw fields.corrupt("role");
  return {
    role,
    establishment: fields.digest("establishment"),
    pending: fields.digest("pending"),
    active: fields.digest("active"),
  };
}

function decodeRemote(fields: Fields): RemoteInfo {
  const locality = fields.optional("locality", (name) => {
    const inner = fields.inner(name);
    return { region: inner.text("region"), zone: inner.text("zone") };
  });
  const remote = { partition: fields.text("partition"), datacenter: fields.text("datacenter") };
  return locality === undefined ? remote : { ...remote, locality };
}

function encode(value: object): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function isStoredState(state: string): state is StoredState {
  return state === "pending" || state === "establishing" || state === "deleting" || state === "terminated";
}

/** Fields of a stored JSON object, each checked as it is read. */
class Fields {
  readonly #values: ReadonlyMap<string, unknown>;

  constructor(source: unknown) {
    const value = source instanceof Uint8Array ? this.#parse(source) : source;
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw this.corrupt("value");
    this.#values = new Map(Object.entries(value));
  }

  corrupt(field: string): PeeringError {
    return new PeeringError("storage-failed", `bad ${field}`, {
      remedy: "Restore the data from a backup, or remove the entry and establish the peering again.",
    });
  }

  text(name: string): string {
    const value = this.#values.get(name);
    if (typeof value !== "string") throw this.corrupt(name);
    return value;
  }

  digest(name: string): string {
    const value = this.text(name);
    if (value !== "" && !/^[0-9a-f]{64}$/.test(value)) throw this.corrupt(name);
    return value;
  }

  number(name: string): number {
    const value = this.#values.get(name);
    if (typeof value !== "number" || !Number.isFinite(value) || value === 0) throw this.corrupt(name);
    return value;
  }

  index(name: string): bigint {
    const value = this.text(name);
    if (!/^[1-9][0-9]{0,19}$/.test(value)) throw this.corrupt(name);
    return BigInt(value);
  }

  texts(name: string): readonly string[] {
    const value = this.#values.get(name);
    if (!Array.isArray(value) || !value.every((item): item is string => typeof item === "string")) {
      throw this.corrupt(name);
    }
    return value;
  }

  textMap(name: string): Readonly<Record<string, string>> {
    const value = this.#values.get(name);
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw this.corrupt(name);
    const pairs: [string, string][] = [];
    for (const [key, item] of Object.entries(value)) {
      if (typeof item !== "string") throw this.corrupt(name);
      pairs.push([key, item]);
    }
    return Object.fromEntries(pairs);
  }

  inner(name: string): Fields {
    return new Fields(this.#values.get(name));
  }

  optional<T>(name: string, read: (name: string) => T): T | undefined {
    return this.#values.has(name) ? read(name) : undefined;
  }

  #parse(bytes: Uint8Array): unknown {
    try {
      return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    } catch {
      throw this.corrupt("value");
    }
  }
}
