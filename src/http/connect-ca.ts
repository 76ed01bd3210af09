import { X509Certificate } from "node:crypto";
import type { ServiceLeaf } from "../host/leaf-certificates.js";
import {
  decodeGoSteps,
  type GoJson,
  type GoType,
  goAny,
  goBool,
  goMap,
  goString,
  goStruct,
  goUint64,
  plainJson,
} from "../syntax/go-json.js";
import type { CaRoot } from "../trust/authority.js";
import { type BuiltInAuthority, keyKindOf } from "../trust/built-in-authority.js";
import { colonHex, subjectKeyIdOf } from "../trust/pem.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { ownDatacenter } from "./discovery-options.js";
import { badRequest, decodeFailed, HttpRefusal } from "./http-refusal.js";
import { type Json, timeText } from "./json.js";
import type { JsonSchema, Operation, ParameterDoc } from "./operation.js";
import {
  anyObject,
  datacenterParameter,
  flag,
  index,
  listOf,
  objectOf,
  readParameters,
  text,
  textsByKey,
  time,
} from "./operation-docs.js";

/** The one provider there is: the certificate authority that is built in. */
const PROVIDER = "consul";
/** RFC 8555. */
const PEM_CHAIN = "application/pem-certificate-chain";
/** Providers of Consul that keep their keys elsewhere. */
const OTHER_PROVIDERS = ["vault", "aws-pca"];

/** @param asPem - as one text of certificates, instead of JSON. */
async function roots(call: Call, asPem: boolean): Promise<Answer> {
  const options = call.readOptions();
  ownDatacenter(call);
  const { host, server } = call;
  const { authority } = host;
  const query = {
    read: () => ({ index: server.rootsIndex(), result: authority.roots() }),
    index: server.rootsIndex,
    subscribe: (wake: () => void) => authority.onRootsChanged(wake),
  };
  return call.answer(options, query, async ({ index, result }) => {
    const sorted = result.toSorted((left, right) => (left.id < right.id ? -1 : 1));
    if (asPem) return { text: sorted.flatMap(pemsOf).join(""), textType: PEM_CHAIN };
    return {
      json: {
        ActiveRootID: result.find((root) => root.active)?.id ?? "",
        TrustDomain: authority.trustDomain,
        Roots: sorted.map((root) => rootJson(root, authority.trustDomain, index)),
      },
      read: { index },
    };
  });
}

function pemsOf({ certificatePem, intermediatePems = [] }: CaRoot): readonly string[] {
  return [certificatePem, ...intermediatePems];
}

/** @throws {HttpRefusal} 400 with Consul's text. */
function pemParameter({ query }: Call): boolean {
  const given = query.get("pem") ?? "";
  if (/^(?:1|t|T|true|TRUE|True)$/.test(given)) return true;
  if (/^(?:0|f|F|false|FALSE|False|)$/.test(given)) return false;
  throw badRequest("The 'pem' query parameter must be a boolean value");
}

function rootJson(root: CaRoot, trustDomain: string, index: bigint): Json {
  const certificate = new X509Certificate(root.certificatePem);
  const { publicKey } = certificate;
  const { type, bits } = keyKindOf(publicKey);
  const intermediates = root.intermediatePems ?? [];
  return {
    ID: root.id,
    Name: "Consul CA Primary Cert",
    // Consul's is a uint64; roots of others have longer ones.
    SerialNumber: BigInt.asUintN(64, BigInt(`0x${certificate.serialNumber}`)),
    SigningKeyID: colonHex(subjectKeyIdOf(certificate)),
    ExternalTrustDomain: trustDomain.replace(/\.consul$/, ""),
    NotBefore: timeText(Date.parse(certificate.validFrom)),
    NotAfter: timeText(root.notAfter),
    RootCert: root.certificatePem,
    IntermediateCerts: intermediates.length === 0 ? null : intermediates,
    Active: root.active,
    PrivateKeyType: type,
    PrivateKeyBits: bits,
    CreateIndex: index,
    ModifyIndex: index,
  };
}

async function configuration(call: Call): Promise<Answer> {
  // Consul tells no index of it, and waits for none.
  call.readOptions();
  ownDatacenter(call);
  await call.require({ resource: "operator", access: "write" });
  const authority = call.host.builtInAuthority;
  if (authority === undefined) {
    return { json: { Provider: "external", Config: {}, ...caConfigurationTail(false, 0n, 0n) } };
  }
  const { config, forceWithoutCrossSigning, createIndex, modifyIndex } = authority.configuration();
  return {
    json: {
      Provider: PROVIDER,
      Config: new Map(Object.entries(config)),
      ...caConfigurationTail(forceWithoutCrossSigning, createIndex, modifyIndex),
    },
  };
}

function caConfigurationTail(
  force: boolean,
  createIndex: bigint,
  modifyIndex: bigint,
): { readonly [key: string]: Json } {
  return { State: null, ForceWithoutCrossSigning: force, CreateIndex: createIndex, ModifyIndex: modifyIndex };
}

interface ConfigurationBody {
  readonly Provider: string;
  readonly Config: Readonly<Record<string, GoJson>>;
  readonly State: Readonly<Record<string, string>>;
  readonly ForceWithoutCrossSigning: boolean;
  readonly force_without_cross_signing: boolean;
  readonly CreateIndex: bigint;
  readonly ModifyIndex: bigint;
}

/** Consul decodes into a struct without a name that holds this one, and its texts say so. */
const configurationType: GoType<ConfigurationBody> = goStruct<ConfigurationBody>("structs..Alias", {
  Provider: goString,
  Config: goMap(goAny),
  State: goMap(goString),
  ForceWithoutCrossSigning: goBool,
  force_without_cross_signing: goBool,
  CreateIndex: goUint64,
  ModifyIndex: goUint64,
});

async function configure(call: Call): Promise<Answer> {
  ownDatacenter(call);
  await call.require({ resource: "operator", access: "write" });
  const authority = configurable(call);
  const body = await call.decoded((body) => decodeGoSteps(body, configurationType), decodeFailed);
  if (Object.keys(body.State).length > 0) {
    throw badRequest("Provider State is read-only. It must be omitted or identical to the current value");
  }
  requireProvider(body.Provider);
  await authority.configure({
    config: Object.fromEntries(Object.entries(body.Config).map(([key, value]) => [key, plainJson(value)])),
    forceWithoutCrossSigning: body.ForceWithoutCrossSigning || body.force_without_cross_signing,
    ...(body.ModifyIndex > 0n && { modifyIndex: body.ModifyIndex }),
  });
  return {};
}

/** @throws {HttpRefusal} 400: the program that runs this host keeps the keys. */
function configurable({ host }: Call): BuiltInAuthority {
  const authority = host.builtInAuthority;
  if (authority !== undefined) return authority;
  throw badRequest(
    "The certificate authority of this cluster is kept by the program that runs it, and is configured there",
  );
}

function requireProvider(provider: string): void {
  if (provider === PROVIDER) return;
  const name = JSON.stringify(provider);
  const why = OTHER_PROVIDERS.includes(provider)
    ? `CA provider ${name} is not supported here: the one provider is "consul"`
    : `unknown CA provider ${name}`;
  throw new HttpRefusal(500, `could not initialize provider: ${why}`);
}

async function leaf(call: Call): Promise<Answer> {
  call.refusePartition();
  call.refuseNamespace();
  const options = call.readOptions();
  ownDatacenter(call);
  const { leafCertificates } = call.host;
  const service = call.rest;
  leafCertificates.requireName(service);
  await call.require({ resource: "service", access: "write", name: service });
  // A call that does not wait gets no certificate that is due for renewal or of a root that was rotated out.
  const waits = options.minIndex > 0n;
  const held = leafCertificates.peek(service);
  const now = waits ? await leafCertificates.known(service) : await leafCertificates.current(service);
  const hit = waits && held === now && now.index > options.minIndex;
  const query = {
    read: () => {
      const result = leafCertificates.peek(service) ?? now;
      return { index: result.index, result };
    },
    index: () => (leafCertificates.peek(service) ?? now).index,
    subscribe: (wake: () => void) => leafCertificates.watch(service, wake),
  };
  return call.answer(options, query, async ({ index, result }) => ({
    json: leafJson(result),
    headers: {
      "X-Consul-Index": String(index),
      "X-Cache": hit ? "HIT" : "MISS",
      ...(hit && { Age: String(Math.trunc((call.server.clock.now() - result.issuedAtMs) / 1_000)) }),
    },
  }));
}

function leafJson({ service, serviceUri, certificate, index }: ServiceLeaf): Json {
  const { certificateChainPem, privateKeyPem, notBefore, notAfter } = certificate;
  const { serialNumber } = new X509Certificate(certificateChainPem);
  return {
    SerialNumber: colonHex(Buffer.from(serialNumber, "hex")),
    CertPEM: certificateChainPem,
    PrivateKeyPEM: privateKeyPem,
    Service: service,
    ServiceURI: serviceUri,
    ValidAfter: timeText(notBefore),
    ValidBefore: timeText(notAfter),
    CreateIndex: index,
    ModifyIndex: index,
  };
}

const integer: JsonSchema = { type: "integer" };
const rootSchema: JsonSchema = objectOf({
  ID: text,
  Name: text,
  SerialNumber: integer,
  SigningKeyID: text,
  ExternalTrustDomain: text,
  NotBefore: time,
  NotAfter: time,
  RootCert: text,
  IntermediateCerts: { type: ["array", "null"], items: text },
  Active: flag,
  PrivateKeyType: text,
  PrivateKeyBits: integer,
  CreateIndex: index,
  ModifyIndex: index,
});
const rootsSchema = objectOf({ ActiveRootID: text, TrustDomain: text, Roots: listOf(rootSchema) });

const pemDoc: ParameterDoc = {
  name: "pem",
  in: "query",
  description: "`true`: one text of certificates in PEM, instead of JSON.",
};

export const connectCaOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/connect/ca/roots",
    sources: ["roots"],
    run: (call) => roots(call, pemParameter(call)),
    docs: [
      {
        path: "/v1/connect/ca/roots",
        id: "listRoots",
        summary: "The root certificates of this cluster.",
        parameters: [...readParameters, datacenterParameter, pemDoc],
        answer: rootsSchema,
        textAnswer: PEM_CHAIN,
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/agent/connect/ca/roots",
    sources: ["roots"],
    run: async (call) => ({ ...(await roots(call, false)), headers: { "X-Cache": "MISS" } }),
    docs: [
      {
        path: "/v1/agent/connect/ca/roots",
        id: "listRootsAtAgent",
        summary: "The root certificates of this cluster, for proxies and programs beside the agent.",
        parameters: [...readParameters, datacenterParameter],
        answer: rootsSchema,
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/agent/connect/ca/leaf/",
    run: leaf,
    docs: [
      {
        path: "/v1/agent/connect/ca/leaf/{service}",
        id: "readLeaf",
        summary: "A certificate of a service with its private key, for proxies and programs beside the agent.",
        parameters: [...readParameters, datacenterParameter],
        answer: objectOf({
          SerialNumber: text,
          CertPEM: text,
          PrivateKeyPEM: text,
          Service: text,
          ServiceURI: text,
          ValidAfter: time,
          ValidBefore: time,
          CreateIndex: index,
          ModifyIndex: index,
        }),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/connect/ca/configuration",
    run: configuration,
    docs: [
      {
        path: "/v1/connect/ca/configuration",
        id: "readCaConfiguration",
        summary: "The configuration of this cluster's certificate authority; no private key.",
        parameters: [...readParameters, datacenterParameter],
        answer: objectOf({
          Provider: text,
          Config: anyObject,
          State: { type: "null" },
          ForceWithoutCrossSigning: flag,
          CreateIndex: index,
          ModifyIndex: index,
        }),
      },
    ],
  },
  {
    method: "PUT",
    pattern: "/v1/connect/ca/configuration",
    run: configure,
    docs: [
      {
        path: "/v1/connect/ca/configuration",
        id: "writeCaConfiguration",
        summary:
          "Configures the certificate authority, whole; another kind of key, a key or a root makes a new root active.",
        parameters: [datacenterParameter],
        body: {
          type: "object",
          properties: {
            Provider: text,
            Config: anyObject,
            State: textsByKey,
            ForceWithoutCrossSigning: flag,
            ModifyIndex: index,
          },
          required: ["Provider"],
        },
      },
    ],
  },
];
