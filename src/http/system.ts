import { arch, availableParallelism, cpus, freemem, hostname, platform, release, totalmem, uptime } from "node:os";
import { allowAll } from "../access/authorizer.js";
import { hostOf } from "../base/host-port.js";
import { MEMBERSHIP_CHECK } from "../model/health.js";
import type { Answer } from "./answer.js";
import type { AgentControl, Call } from "./call.js";
import { ownDatacenter } from "./discovery-options.js";
import { type Fields, integer as integerField, text as textField, textMap as textMapField } from "./filter/fields.js";
import { badRequest, HttpRefusal } from "./http-refusal.js";
import { kept } from "./in-turns.js";
import { type Json, textMap, timeText } from "./json.js";
import { LineQueue } from "./line-queue.js";
import type { JsonSchema, Operation } from "./operation.js";
import { anyObject, flag, index, listOf, objectOf, text, texts, textsByKey, time } from "./operation-docs.js";

/** The node's own server is not a service that a caller registered; Consul does not list it at an agent either. */
export const SERVER_ID = "consul";

/** Whether a caller registered a check at this node. */
export function isOwnCheck({ checkId, serviceId }: { readonly checkId: string; readonly serviceId: string }): boolean {
  return checkId !== MEMBERSHIP_CHECK && serviceId !== SERVER_ID;
}

/** Where the leader is, as far as this node knows; `""`: there is no leader. */
function leaderOf({ host, server }: Call): string {
  const { isLeader, leaderAddress } = host.leadership;
  return isLeader ? server.address : leaderAddress;
}

/** @throws {HttpRefusal} 500: another datacenter is asked for, to which no gossip leads from here. */
function onlyDatacenter({ host, query }: Call): void {
  const asked = query.get("dc") ?? "";
  if (asked !== "" && asked !== host.datacenter) throw new HttpRefusal(500, "No path to datacenter");
}

async function leader(call: Call): Promise<Answer> {
  onlyDatacenter(call);
  return { json: leaderOf(call) };
}

async function peers(call: Call): Promise<Answer> {
  onlyDatacenter(call);
  const known = new Set([leaderOf(call), call.server.address]);
  known.delete("");
  return { json: [...known] };
}

async function datacenters(call: Call): Promise<Answer> {
  call.consistency();
  return { json: [call.host.datacenter] };
}

/** The node as it is registered; `""` before it is. */
function nodeId({ host, server }: Call): string {
  return host.catalog.nodeAlone(server.nodeName)?.id ?? "";
}

/** A node as Consul's gossip tells of it. */
interface Member {
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly tags: Readonly<Record<string, string>>;
}

/** The parts that all of them share. */
const MEMBER = {
  Status: 1,
  ProtocolMin: 1,
  ProtocolMax: 5,
  ProtocolCur: 2,
  DelegateMin: 2,
  DelegateMax: 5,
  DelegateCur: 4,
} as const;

/**
 * This node.
 * @param wide - as the gossip between datacenters would tell of it.
 */
export function memberOf(call: Call, wide = false): Member {
  const { host, server } = call;
  const port = server.address.slice(server.address.lastIndexOf(":") + 1);
  return {
    name: wide ? `${server.nodeName}.${host.datacenter}` : server.nodeName,
    address: hostOf(server.address),
    port: Number(port),
    tags: {
      acls: server.authorizer === allowAll ? "0" : "1",
      // The text behind the colon is the commit that a build was made of.
      build: `${server.version}:`,
      dc: host.datacenter,
      grpc_tls_port: port,
      id: nodeId(call),
      port,
      raft_vsn: "3",
      role: "consul",
      segment: "",
      vsn: "2",
      vsn_max: "3",
      vsn_min: "2",
    },
  };
}

export function memberJson({ name, address, port, tags }: Member): Json {
  return { Name: name, Addr: address, Port: port, Tags: textMap(tags), ...MEMBER };
}

/** The fields that filters may name. */
export const memberFields: Fields<Member> = {
  Name: textField(({ name }) => name),
  Addr: textField(({ address }) => address),
  Port: integerField(({ port }) => port),
  Tags: textMapField(({ tags }) => tags),
  ...Object.fromEntries(Object.entries(MEMBER).map(([key, value]) => [key, integerField<Member>(() => value)])),
};

async function self(call: Call): Promise<Answer> {
  const { host, server } = call;
  await call.require({ resource: "agent", access: "read", name: server.nodeName });
  const { xdsPort = -1, xdsTlsPort = -1 } = server;
  return {
    json: {
      Config: {
        Datacenter: host.datacenter,
        PrimaryDatacenter: host.datacenter,
        NodeName: server.nodeName,
        NodeID: nodeId(call),
        Revision: "",
        Server: true,
        Version: server.version,
        BuildDate: "1970-01-01T00:00:00Z",
      },
      DebugConfig: {},
      Coord: null,
      Member: memberJson(memberOf(call)),
      Stats: await stats(call),
      Meta: textMap(host.catalog.nodeAlone(server.nodeName)?.meta ?? {}),
      xDS: { SupportedProxies: {}, Port: xdsPort, Ports: { Plaintext: xdsPort, TLS: xdsTlsPort } },
    },
  };
}

/** Those of Consul's figures that its clients look at, as texts. */
async function stats(call: Call): Promise<Json> {
  const { host, server } = call;
  const { isLeader } = host.leadership;
  const index = String(host.catalog.revision);
  const node = await host.catalog.nodeContents(server.nodeName);
  // The server that the node itself is has not been registered by a caller.
  const checks = await kept(node?.checks ?? [], isOwnCheck);
  const ttls = await kept(checks, ({ type }) => type === "ttl");
  const services = await kept(node?.services ?? [], ({ id }) => id !== SERVER_ID);
  return {
    agent: {
      check_monitors: "0",
      check_ttls: String(ttls.length),
      checks: String(checks.length),
      services: String(services.length),
    },
    build: { prerelease: "", revision: "", version: server.version, version_metadata: "" },
    consul: {
      acl: server.authorizer === allowAll ? "disabled" : "enabled",
      bootstrap: "false",
      known_datacenters: "1",
      leader: String(isLeader),
      leader_addr: leaderOf(call),
      server: "true",
    },
    raft: {
      applied_index: index,
      commit_index: index,
      last_contact: "0",
      last_log_index: index,
      num_peers: "0",
      protocol_version: "3",
      state: isLeader ? "Leader" : "Follower",
    },
    runtime: { arch: process.arch, cpu_count: String(availableParallelism()), os: process.platform },
  };
}

/** This node as the one server that votes: Consul's test helpers and Terraform wait for it. */
async function raftConfiguration(call: Call): Promise<Answer> {
  ownDatacenter(call);
  await call.require({ resource: "operator", access: "read" });
  const { host, server } = call;
  return {
    json: {
      Servers: [
        {
          ID: nodeId(call),
          Node: server.nodeName,
          Address: server.address,
          Leader: host.leadership.isLeader,
          ProtocolVersion: "3",
          Voter: true,
          LastIndex: host.catalog.revision,
        },
      ],
      Index: 0,
    },
  };
}

/** The one server, as Consul's autopilot judges servers: what load balancers and monitors of a cluster ask. */
async function serverHealth(call: Call): Promise<Answer> {
  ownDatacenter(call);
  await call.require({ resource: "operator", access: "read" });
  const { host, server } = call;
  const { isLeader } = host.leadership;
  // Without a leader there are no writes.
  const healthy = leaderOf(call) !== "";
  return {
    status: healthy ? 200 : 429,
    json: {
      Healthy: healthy,
      FailureTolerance: 0,
      Servers: [
        {
          ID: nodeId(call),
          Name: server.nodeName,
          Address: server.address,
          SerfStatus: "alive",
          Version: server.version,
          Leader: isLeader,
          LastContact: "0s",
          LastTerm: 0,
          LastIndex: host.catalog.revision,
          Healthy: healthy,
          Voter: true,
          StableSince: timeText(server.startedAt),
        },
      ],
    },
  };
}

async function version(call: Call): Promise<Answer> {
  await call.require({ resource: "agent", access: "read", name: call.server.nodeName });
  return {
    json: { SHA: "", BuildDate: "1970-01-01T00:00:00Z", HumanVersion: call.server.version, FIPS: "" },
  };
}

/** @throws {HttpRefusal} 501: the program does not support that. */
async function controlOf(call: Call, what: string): Promise<AgentControl> {
  const { control, nodeName } = call.server;
  await call.require({ resource: "agent", access: "write", name: nodeName });
  if (control === undefined) throw new HttpRefusal(501, `${what} is not served by this program.`);
  return control;
}

async function reload(call: Call): Promise<Answer> {
  const control = await controlOf(call, "Reading the configuration again");
  const problems = await control.reload();
  if (problems.length > 0) throw new HttpRefusal(500, problems.join("; "));
  return {};
}

/** The log as it is written. */
async function monitor(call: Call): Promise<Answer> {
  const { control, nodeName, host, monitorLines } = call.server;
  await call.require({ resource: "agent", access: "read", name: nodeName });
  if (control === undefined) throw new HttpRefusal(501, "The log is not served by this program.");
  const lines = new LineQueue(monitorLines, () =>
    host.incidents.report("log-lines-left-out", "a client reads the log too slowly: lines were left out", {
      limit: monitorLines,
    }),
  );
  const leavePlace = call.wait(() => lines.end());
  const level = call.query.get("loglevel") || "INFO";
  const stop = control.monitor(
    { level, json: call.query.has("logjson") },
    { line: (line) => lines.push(line), end: () => lines.end() },
  );
  if (stop === undefined) {
    leavePlace();
    throw badRequest(`Unknown log level: ${level}`);
  }
  const end = (): void => {
    stop();
    leavePlace();
    lines.end();
  };
  return { stream: { chunks: lines, end } };
}

async function leave(call: Call): Promise<Answer> {
  const control = await controlOf(call, "Leaving");
  control.leave();
  return {};
}

/** The machine that this node runs on. */
async function machine(call: Call): Promise<Answer> {
  await call.require({ resource: "operator", access: "read" });
  const [total, free] = [totalmem(), freemem()];
  return {
    json: {
      Memory: { total, available: free, used: total - free, usedPercent: (100 * (total - free)) / total, free },
      CPU: cpus().map(({ model, speed }, cpu) => ({ cpu, modelName: model, mhz: speed })),
      Host: {
        hostname: hostname(),
        uptime: Math.trunc(uptime()),
        os: platform(),
        platform: platform(),
        kernelVersion: release(),
        kernelArch: arch(),
      },
      Disk: null,
      CollectionTime: Math.trunc(call.server.clock.wall() * 1e6),
      Errors: null,
    },
  };
}

const integer: JsonSchema = { type: "integer" };
const number: JsonSchema = { type: "number" };

export const memberSchema: JsonSchema = objectOf({
  Name: text,
  Addr: text,
  Port: integer,
  Tags: textsByKey,
  Status: integer,
  ProtocolMin: integer,
  ProtocolMax: integer,
  ProtocolCur: integer,
  DelegateMin: integer,
  DelegateMax: integer,
  DelegateCur: integer,
});

export const systemOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/status/leader",
    sources: [],
    run: leader,
    docs: [{ path: "/v1/status/leader", id: "readLeader", summary: "Address of the leader.", answer: text }],
  },
  {
    method: "GET",
    pattern: "/v1/status/peers",
    sources: [],
    run: peers,
    docs: [{ path: "/v1/status/peers", id: "listServers", summary: "Addresses of the servers.", answer: texts }],
  },
  {
    method: "GET",
    pattern: "/v1/agent/self",
    sources: ["catalog"],
    run: self,
    docs: [
      {
        path: "/v1/agent/self",
        id: "readSelf",
        summary: "This node's description of itself.",
        answer: objectOf({
          Config: objectOf({
            Datacenter: text,
            PrimaryDatacenter: text,
            NodeName: text,
            NodeID: text,
            Revision: text,
            Server: flag,
            Version: text,
            BuildDate: time,
          }),
          DebugConfig: anyObject,
          Coord: { type: "null" },
          Member: memberSchema,
          Stats: anyObject,
          Meta: anyObject,
          xDS: anyObject,
        }),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/catalog/datacenters",
    sources: [],
    cacheable: true,
    run: datacenters,
    docs: [
      { path: "/v1/catalog/datacenters", id: "listDatacenters", summary: "Names of the datacenters.", answer: texts },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/agent/version",
    sources: [],
    run: version,
    docs: [
      {
        path: "/v1/agent/version",
        id: "readVersion",
        summary: "The version of Consul that is followed.",
        answer: objectOf({ SHA: text, BuildDate: time, HumanVersion: text, FIPS: text }),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/operator/autopilot/health",
    sources: ["catalog"],
    run: serverHealth,
    docs: [
      {
        path: "/v1/operator/autopilot/health",
        id: "readServerHealth",
        summary: "How healthy the servers of this cluster are: 200 when it has a leader, else 429.",
        answer: objectOf({
          Healthy: flag,
          FailureTolerance: integer,
          Servers: listOf(
            objectOf({
              ID: text,
              Name: text,
              Address: text,
              SerfStatus: text,
              Version: text,
              Leader: flag,
              LastContact: text,
              LastTerm: index,
              LastIndex: index,
              Healthy: flag,
              Voter: flag,
              StableSince: time,
            }),
          ),
        }),
      },
    ],
  },
  {
    method: "PUT",
    pattern: "/v1/agent/reload",
    run: reload,
    docs: [
      {
        path: "/v1/agent/reload",
        id: "reloadAgent",
        summary: "Has the agent read its configuration again; 500 names the settings that could not be used.",
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/agent/monitor",
    run: monitor,
    docs: [
      {
        path: "/v1/agent/monitor",
        id: "monitorAgent",
        summary: "The log of the agent as it is written, a line each, for as long as the client listens.",
        parameters: [
          {
            name: "loglevel",
            in: "query",
            description: "The least urgent level: `trace`, `debug`, `info`, `warn`, `error`.",
          },
          { name: "logjson", in: "query", description: "Each line is a JSON object." },
        ],
      },
    ],
  },
  {
    method: "PUT",
    pattern: "/v1/agent/leave",
    run: leave,
    docs: [{ path: "/v1/agent/leave", id: "leave", summary: "Ends the agent in order." }],
  },
  {
    method: "GET",
    pattern: "/v1/agent/host",
    run: machine,
    docs: [
      {
        path: "/v1/agent/host",
        id: "readMachine",
        summary: "The machine that this node runs on.",
        answer: objectOf({
          Memory: objectOf({ total: integer, available: integer, used: integer, usedPercent: number, free: integer }),
          CPU: listOf(objectOf({ cpu: integer, modelName: text, mhz: number })),
          Host: objectOf({
            hostname: text,
            uptime: integer,
            os: text,
            platform: text,
            kernelVersion: text,
            kernelArch: text,
          }),
          Disk: { type: "null" },
          CollectionTime: integer,
          Errors: { type: "null" },
        }),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/operator/raft/configuration",
    sources: ["catalog"],
    run: raftConfiguration,
    docs: [
      {
        path: "/v1/operator/raft/configuration",
        id: "readServers",
        summary: "The servers of this cluster: this node.",
        answer: objectOf({
          Servers: listOf(
            objectOf({
              ID: text,
              Node: text,
              Address: text,
              Leader: flag,
              ProtocolVersion: text,
              Voter: flag,
              LastIndex: index,
            }),
          ),
          Index: index,
        }),
      },
    ],
  },
];
