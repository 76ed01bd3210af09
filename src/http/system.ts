import { createHash, X509Certificate } from "node:crypto";
import type { CaRoot } from "../trust/authority.js";
import { blocking } from "./blocking.js";
import type { Answer, Call } from "./call.js";
import { type Json, timeText } from "./json.js";
import {
  anyObject,
  flag,
  index,
  listOf,
  objectOf,
  readParameters,
  text,
  texts,
  textsByKey,
  time,
} from "./operation-docs.js";
import type { JsonSchema, Operation } from "./routes.js";

/** Where the leader is, as far as this node knows; `""`: nobody leads. */
function leaderOf({ host, server }: Call): string {
  const { isLeader, leaderAddress } = host.leadership;
  return isLeader ? server.address : leaderAddress;
}

async function leader(call: Call): Promise<Answer> {
  return { json: leaderOf(call) };
}

async function peers(call: Call): Promise<Answer> {
  const known = new Set([leaderOf(call), call.server.address]);
  known.delete("");
  return { json: [...known] };
}

async function datacenters(call: Call): Promise<Answer> {
  return { json: [call.host.datacenter] };
}

/** This node as Consul's gossip would tell of it. */
export function memberJson({ host, server }: Call): Json {
  const colon = server.address.lastIndexOf(":");
  return {
    Name: server.nodeName,
    Addr: server.address.slice(0, Math.max(colon, 0)).replace(/^\[|\]$/g, ""),
    Port: Number(server.address.slice(colon + 1)),
    Tags: new Map([
      ["build", server.version],
      ["dc", host.datacenter],
      ["role", "consul"],
      ["segment", ""],
      ["vsn", "2"],
    ]),
    Status: 1,
    ProtocolMin: 1,
    ProtocolMax: 5,
    ProtocolCur: 2,
    DelegateMin: 2,
    DelegateMax: 5,
    DelegateCur: 4,
  };
}

async function self(call: Call): Promise<Answer> {
  const { host, server } = call;
  await call.require({ resource: "agent", access: "read", name: server.nodeName });
  return {
    json: {
      Config: {
        Datacenter: host.datacenter,
        PrimaryDatacenter: host.datacenter,
        NodeName: server.nodeName,
        NodeID: "",
        Revision: "",
        Server: true,
        Version: server.version,
        BuildDate: "1970-01-01T00:00:00Z",
      },
      DebugConfig: {},
      Coord: null,
      Member: memberJson(call),
      Stats: {},
      Meta: {},
      xDS: { SupportedProxies: {}, Port: -1, Ports: { Plaintext: -1, TLS: -1 } },
    },
  };
}

async function roots(call: Call): Promise<Answer> {
  const options = call.readOptions();
  const { host, server } = call;
  const { authority } = host;
  const reading = await blocking(call, options, {
    read: () => ({ index: server.rootsIndex(), result: authority.roots() }),
    index: server.rootsIndex,
    subscribe: (wake) => authority.onRootsChanged(wake),
  });
  const active = reading.result.find((root) => root.active);
  return {
    json: {
      ActiveRootID: active?.id ?? "",
      TrustDomain: authority.trustDomain,
      Roots: reading.result.map((root) => rootJson(root, authority.trustDomain, reading.index)),
    },
    read: { index: reading.index },
  };
}

function rootJson(root: CaRoot, trustDomain: string, index: bigint): Json {
  const certificate = new X509Certificate(root.certificatePem);
  const { publicKey } = certificate;
  const { namedCurve, modulusLength } = publicKey.asymmetricKeyDetails ?? {};
  const keyId = createHash("sha256")
    .update(publicKey.export({ type: "spki", format: "der" }))
    .digest("hex");
  return {
    ID: root.id,
    Name: root.active ? "Peerage CA Primary Cert" : "Peerage CA Former Cert",
    SerialNumber: BigInt(`0x${certificate.serialNumber}`),
    SigningKeyID: keyId.replace(/(..)(?=.)/g, "$1:"),
    ExternalTrustDomain: trustDomain.replace(/\.consul$/, ""),
    NotBefore: timeText(Date.parse(certificate.validFrom)),
    NotAfter: timeText(root.notAfter),
    RootCert: root.certificatePem,
    IntermediateCerts: null,
    Active: root.active,
    PrivateKeyType: publicKey.asymmetricKeyType ?? "",
    PrivateKeyBits: modulusLength ?? (namedCurve === "secp384r1" ? 384 : namedCurve === "secp521r1" ? 521 : 256),
    CreateIndex: index,
    ModifyIndex: index,
  };
}

const integer: JsonSchema = { type: "integer" };

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

const rootSchema: JsonSchema = objectOf({
  ID: text,
  Name: text,
  SerialNumber: integer,
  SigningKeyID: text,
  ExternalTrustDomain: text,
  NotBefore: time,
  NotAfter: time,
  RootCert: text,
  IntermediateCerts: { type: "null" },
  Active: flag,
  PrivateKeyType: text,
  PrivateKeyBits: integer,
  CreateIndex: index,
  ModifyIndex: index,
});

export const systemOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/status/leader",
    run: leader,
    docs: [{ path: "/v1/status/leader", id: "readLeader", summary: "Address of the leader.", answer: text }],
  },
  {
    method: "GET",
    pattern: "/v1/status/peers",
    run: peers,
    docs: [{ path: "/v1/status/peers", id: "listServers", summary: "Addresses of the servers.", answer: texts }],
  },
  {
    method: "GET",
    pattern: "/v1/agent/self",
    run: self,
    docs: [
      {
        path: "/v1/agent/self",
        id: "readSelf",
        summary: "What this node says of itself.",
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
    run: datacenters,
    docs: [
      { path: "/v1/catalog/datacenters", id: "listDatacenters", summary: "Names of the datacenters.", answer: texts },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/connect/ca/roots",
    run: roots,
    docs: [
      {
        path: "/v1/connect/ca/roots",
        id: "listRoots",
        summary: "The root certificates of this cluster.",
        parameters: readParameters,
        answer: objectOf({ ActiveRootID: text, TrustDomain: text, Roots: listOf(rootSchema) }),
      },
    ],
  },
];
