import { allowAll } from "../access/authorizer.js";
import type { Answer } from "./answer.js";
import { blocking } from "./blocking.js";
import type { Call } from "./call.js";
import { ownDatacenter } from "./discovery-options.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import type { Json } from "./json.js";
import type { Method, Operation } from "./operation.js";

// Parts of Consul that this library lacks. Reads answer as a store does that is empty and stays so, and wait as they are
// asked to: a 404 that comes at once has clients ask again at once, thousands of times a second. Writes answer 501: clients
// take a 404 of a removal for success.

/** Waits as a read of a store that never changes. */
async function wait(call: Call): Promise<{ readonly index: bigint }> {
  const { index } = await blocking(call, call.readOptions(), {
    read: () => ({ index: 1n, result: undefined }),
    subscribe: () => () => {},
  });
  return { index };
}

/** As Consul answers for a key that does not exist. */
async function noKey(call: Call): Promise<Answer> {
  if (call.rest === "" && !call.query.has("recurse") && !call.query.has("keys")) throw badRequest("Missing key name");
  ownDatacenter(call);
  await call.require({ resource: "key", access: "read", name: call.rest });
  return { status: 404, text: "", read: await wait(call) };
}

/** @param local - each agent has its own: another datacenter is not looked for. */
function nothing(json: Json, local = false): (call: Call) => Promise<Answer> {
  return async (call) => {
    if (!local) ownDatacenter(call);
    await call.access();
    return { json, read: await wait(call) };
  };
}

function read(pattern: string, run: (call: Call) => Promise<Answer>): Operation {
  return { method: "GET", pattern, run, unserved: true, docs: [] };
}

function refused(what: string, pattern: string, methods: readonly Method[]): readonly Operation[] {
  return methods.map((method) => ({
    method,
    pattern,
    run: async () => {
      throw new HttpRefusal(501, `${what} not served by this agent.`);
    },
    unserved: true,
    docs: [],
  }));
}

function operator(path: string, methods: readonly Method[]): readonly Operation[] {
  return refused("This part of the operator API is", `/v1/operator/${path}`, methods);
}

const ALL: readonly Method[] = ["GET", "PUT", "POST", "DELETE"];

/** ACLs without a policy file are off, which Consul's clients know how to tell; with one, it is where they are changed. */
async function acl(call: Call): Promise<Answer> {
  if (call.server.authorizer === allowAll) throw new HttpRefusal(401, "ACL support disabled");
  throw new HttpRefusal(
    501,
    "Tokens and policies are those of this agent's policy file: reading and changing them is not served.",
  );
}

export const unservedOperations: readonly Operation[] = [
  read("/v1/kv/", noKey),
  ...refused("The key-value store is", "/v1/kv/", ["PUT", "DELETE"]),
  read("/v1/session/list", nothing([])),
  read("/v1/session/info/", nothing([])),
  read("/v1/session/node/", nothing([])),
  ...["create", "destroy/", "renew/"].flatMap((path) => refused("Sessions are", `/v1/session/${path}`, ["PUT"])),
  read("/v1/event/list", nothing([], true)),
  ...refused("Events are", "/v1/event/fire/", ["PUT"]),
  read("/v1/coordinate/datacenters", nothing([], true)),
  read("/v1/coordinate/nodes", nothing([])),
  read("/v1/coordinate/node/", async (call) => {
    ownDatacenter(call);
    await call.access();
    return { status: 404, text: "", read: await wait(call) };
  }),
  ...refused("Coordinates are", "/v1/coordinate/update", ["PUT"]),
  ...ALL.map((method): Operation => ({ method, pattern: "/v1/acl/", run: acl, unserved: true, docs: [] })),
  read("/v1/internal/ui/metrics-proxy/", async () => {
    throw new HttpRefusal(404, "Metrics proxy is not enabled");
  }),
  ...refused("Snapshots are", "/v1/snapshot", ["GET", "PUT"]),
  // Those that Consul's community edition has: to others it answers 404, too.
  ...operator("keyring", ALL),
  ...operator("usage", ["GET"]),
  ...operator("autopilot/configuration", ["GET", "PUT"]),
  ...operator("autopilot/state", ["GET"]),
  ...operator("raft/peer", ["DELETE"]),
  ...operator("raft/transfer-leader", ["POST"]),
  ...["join/", "force-leave/"].flatMap((path) => refused("Gossip and its members are", `/v1/agent/${path}`, ["PUT"])),
  { method: "PUT", pattern: "/v1/agent/token/", run: acl, unserved: true, docs: [] },
];
