import { PeeringError } from "../base/errors.js";
import type { PeeringView } from "../host/peerings.js";
import { validatePeeringMeta, validatePeerName } from "../peering/names.js";
import { decodeGoSteps, type GoJsonError, type GoType, goList, goMap, goString, goStruct } from "../syntax/go-json.js";
import type { Answer } from "./answer.js";
import type { BlockingQuery } from "./blocking.js";
import type { Call } from "./call.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import { type Json, LazyList } from "./json.js";
import type { JsonSchema, Operation } from "./operation.js";
import {
  index,
  listOf,
  objectOf,
  readParameters,
  text,
  texts,
  textsByKey,
  textsOrNull,
  time,
  timeOrNull,
} from "./operation-docs.js";
import { peeringJson } from "./peering-json.js";

interface TokenRequest {
  readonly PeerName: string;
  readonly Partition: string;
  readonly Meta: Readonly<Record<string, string>>;
  readonly ServerExternalAddresses: readonly string[];
}

const tokenRequest: GoType<TokenRequest> = goStruct<TokenRequest>("api.PeeringGenerateTokenRequest", {
  PeerName: goString,
  Partition: goString,
  Meta: goMap(goString),
  ServerExternalAddresses: goList(goString),
});

interface EstablishRequest {
  readonly PeerName: string;
  readonly PeeringToken: string;
  readonly Partition: string;
  readonly Meta: Readonly<Record<string, string>>;
}

const establishRequest: GoType<EstablishRequest> = goStruct<EstablishRequest>("api.PeeringEstablishRequest", {
  PeerName: goString,
  PeeringToken: goString,
  Partition: goString,
  Meta: goMap(goString),
});

/** Reads the body strictly: keys that are no field are refused. @throws {HttpRefusal} 400 with Consul's text. */
export async function strictBody<T>(call: Call, type: GoType<T>): Promise<T> {
  const refuse = ({ message }: GoJsonError): HttpRefusal => badRequest(`Body decoding failed: ${message}`);
  return call.decoded((body) => decodeGoSteps(body, type), refuse);
}

async function generateToken(call: Call): Promise<Answer> {
  call.refusePartition();
  const request = await strictBody(call, tokenRequest);
  if (request.PeerName === "") {
    throw badRequest("PeerName is required in the payload when generating a new peering token.");
  }
  if (request.Partition !== "" && request.Partition.toLowerCase() !== "default") {
    throw new HttpRefusal(500, "Partitions are a Consul Enterprise feature");
  }
  // A malformed request is refused before rights are looked at, as in Consul.
  validatePeerName(request.PeerName);
  validatePeeringMeta(request.Meta);
  await call.require({ resource: "peering", access: "write" });
  try {
    const token = await call.host.peerings.generateToken({
      peerName: request.PeerName,
      meta: request.Meta,
      serverExternalAddresses: request.ServerExternalAddresses,
    });
    return { json: { PeeringToken: token } };
  } catch (error) {
    // That we listen nowhere is no failure of a connection.
    if (error instanceof PeeringError && error.code === "unavailable" && error.status === undefined) {
      throw new HttpRefusal(500, error.message);
    }
    throw error;
  }
}

async function establish(call: Call): Promise<Answer> {
  call.refusePartition();
  const request = await strictBody(call, establishRequest);
  if (request.PeerName === "") throw badRequest("PeerName is required in the payload when establishing a peering.");
  if (request.PeeringToken === "") {
    throw badRequest("PeeringToken is required in the payload when establishing a peering.");
  }
  validatePeerName(request.PeerName);
  call.host.peerings.requireSound(request.PeeringToken);
  validatePeeringMeta(request.Meta);
  await call.require({ resource: "peering", access: "write" });
  await call.host.peerings.establish({
    peerName: request.PeerName,
    token: request.PeeringToken,
    meta: request.Meta,
    signal: call.signal,
  });
  return { json: {} };
}

async function read(call: Call): Promise<Answer> {
  call.refusePartition();
  const name = peeringName(call);
  const options = call.readOptions();
  await call.require({ resource: "peering", access: "read" });
  const { host } = call;
  const query = {
    read: () => {
      const peering = host.peerings.read(name);
      return { index: peering?.modifyIndex ?? host.view.index, result: peering, found: peering !== undefined };
    },
    unsteady: true,
    subscribe: (wake: () => void) => host.view.onChangeOf(name, wake),
  };
  return call.answer(options, query, async ({ index, result }) => {
    if (result === undefined) throw new HttpRefusal(404, `Peering not found for ${JSON.stringify(name)}`);
    return { json: shown(call, result), read: { index } };
  });
}

function shown(call: Call, peering: PeeringView): Json {
  // Whether it is shown depends on how long it was ago.
  if (peering.status.lastFailure !== undefined) call.answerIsOwn();
  return peeringJson(peering);
}

/** About the cost of a peering and its status, read together. */
const PEERING_BYTES = 1_024;

async function list(call: Call): Promise<Answer> {
  call.refusePartition();
  const options = call.readOptions();
  await call.require({ resource: "peering", access: "read" });
  const { host } = call;
  const query: BlockingQuery<undefined> = {
    read: () => ({ index: host.view.index, result: undefined }),
    index: () => host.view.index,
    // When a peer was heard of last has no index.
    unsteady: true,
    subscribe: (wake) => host.view.onChange(wake),
  };
  return call.answer(options, query, async ({ index }) => {
    const peerings = host.peerings.list();
    await call.room(peerings.length * PEERING_BYTES);
    return { json: LazyList.of(peerings, (peering) => shown(call, peering)), read: { index } };
  });
}

async function remove(call: Call): Promise<Answer> {
  call.refusePartition();
  const name = peeringName(call);
  await call.require({ resource: "peering", access: "write" });
  await call.host.peerings.delete(name);
  return {};
}

async function outstandingTokens(call: Call): Promise<Answer> {
  call.refusePartition();
  await call.require({ resource: "peering", access: "read" });
  return { json: call.host.peerings.outstandingTokens().map(({ id, name }) => ({ ID: id, Name: name })) };
}

async function revokeToken(call: Call): Promise<Answer> {
  call.refusePartition();
  const name = peeringName(call);
  await call.require({ resource: "peering", access: "write" });
  if (!(await call.host.peerings.revokeToken(name))) {
    throw new HttpRefusal(404, `There is no unused peering token for ${JSON.stringify(name)}`);
  }
  return { json: true };
}

function peeringName(call: Call): string {
  if (call.rest === "") throw badRequest("Must specify a name to fetch.");
  return call.rest;
}

const peeringSchema: JsonSchema = objectOf({
  ID: text,
  Name: text,
  "Partition?": text,
  "DeletedAt?": time,
  "Meta?": textsByKey,
  State: {
    type: "string",
    enum: ["UNDEFINED", "PENDING", "ESTABLISHING", "ACTIVE", "FAILING", "DELETING", "TERMINATED"],
  },
  "PeerID?": text,
  "PeerCAPems?": texts,
  "PeerServerName?": text,
  "PeerServerAddresses?": texts,
  StreamStatus: objectOf({
    ImportedServices: textsOrNull,
    ExportedServices: textsOrNull,
    LastHeartbeat: timeOrNull,
    LastReceive: timeOrNull,
    LastSend: timeOrNull,
  }),
  CreateIndex: index,
  ModifyIndex: index,
  Remote: objectOf({
    Partition: text,
    Datacenter: text,
    "Locality?": objectOf({ Region: text, Zone: text }),
  }),
  "Peerage?": objectOf({
    "LastFailure?": objectOf({
      Error: text,
      Code: text,
      "Address?": text,
      At: time,
      Since: time,
      FailedAttempts: index,
      "NextAttempt?": time,
    }),
    "WithheldServices?": textsByKey,
    "WithheldServiceCount?": index,
    "RefusedImports?": textsByKey,
    "RefusedImportCount?": index,
  }),
});

export const peeringOperations: readonly Operation[] = [
  {
    method: "POST",
    pattern: "/v1/peering/token",
    run: generateToken,
    docs: [
      {
        path: "/v1/peering/token",
        id: "generatePeeringToken",
        summary: "Generates a token for another cluster to peer with this one.",
        body: objectOf({
          PeerName: text,
          "Partition?": text,
          "Meta?": textsByKey,
          "ServerExternalAddresses?": texts,
        }),
        answer: objectOf({ PeeringToken: text }),
      },
    ],
  },
  {
    method: "POST",
    pattern: "/v1/peering/establish",
    run: establish,
    docs: [
      {
        path: "/v1/peering/establish",
        id: "establishPeering",
        summary: "Peers with the cluster that generated the token.",
        body: objectOf({ PeerName: text, PeeringToken: text, "Partition?": text, "Meta?": textsByKey }),
        answer: objectOf({}),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/peering/",
    sources: ["peerings", "imports", "streams"],
    run: read,
    docs: [
      {
        path: "/v1/peering/{name}",
        id: "readPeering",
        summary: "The peering of that name.",
        parameters: readParameters,
        answer: peeringSchema,
      },
    ],
  },
  {
    method: "DELETE",
    pattern: "/v1/peering/",
    run: remove,
    docs: [
      {
        path: "/v1/peering/{name}",
        id: "deletePeering",
        summary: "Deletes the peering and all that was imported through it; unknown names are a success.",
      },
    ],
  },
  // These two are ours: Consul has no such paths.
  {
    method: "GET",
    pattern: "/v1/peerage/peering-tokens",
    run: outstandingTokens,
    docs: [
      {
        path: "/v1/peerage/peering-tokens",
        id: "listPeeringTokens",
        summary: "The peerings whose last token is unused, by name.",
        answer: listOf(objectOf({ ID: text, Name: text })),
      },
    ],
  },
  {
    method: "DELETE",
    pattern: "/v1/peerage/peering-tokens/",
    run: revokeToken,
    docs: [
      {
        path: "/v1/peerage/peering-tokens/{name}",
        id: "revokePeeringToken",
        summary: "Makes the unused token of the peering of that name worthless; 404 where there is none.",
        answer: { type: "boolean" },
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/peerings",
    sources: ["peerings", "imports", "streams"],
    run: list,
    docs: [
      {
        path: "/v1/peerings",
        id: "listPeerings",
        summary: "All peerings, by name; `filter` has no effect, as in Consul.",
        parameters: readParameters,
        answer: listOf(peeringSchema),
      },
    ],
  },
];
