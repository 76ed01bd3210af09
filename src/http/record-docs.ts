import { agentProxyShape, checkDefinitionShape, proxyShape, sidecarShape } from "../model/shapes.js";
import type { JsonSchema } from "./operation.js";
import { flag, index, listOf, objectOf, text, texts, textsByKey, textsOrNull } from "./operation-docs.js";
import { structSchema } from "./shape-json.js";

// The records of the catalog as answers show them: what `records-json.ts` writes.

const integer: JsonSchema = { type: "integer" };
const weightsSchema: JsonSchema = objectOf({ Passing: integer, Warning: integer });
const localitySchema: JsonSchema = objectOf({ "Region?": text, "Zone?": text });
const addressesSchema: JsonSchema = mapOf(objectOf({ Address: text, Port: integer }));
const portsSchema: JsonSchema = listOf(objectOf({ Name: text, Port: integer, Default: flag }));
const textsByKeyOrNull: JsonSchema = { type: ["object", "null"], additionalProperties: text };

export function mapOf(values: JsonSchema): JsonSchema {
  return { type: "object", additionalProperties: values };
}

export function orNull(schema: JsonSchema): JsonSchema {
  return { anyOf: [schema, { type: "null" }] };
}

export const nodeSchema: JsonSchema = objectOf({
  ID: text,
  Node: text,
  Address: text,
  Datacenter: text,
  "PeerName?": text,
  TaggedAddresses: textsByKeyOrNull,
  Meta: textsByKeyOrNull,
  "Locality?": localitySchema,
  CreateIndex: index,
  ModifyIndex: index,
});

const proxySchema: JsonSchema = structSchema(proxyShape);
const ownProxySchema: JsonSchema = structSchema(agentProxyShape);

const connectSchema: JsonSchema = objectOf({
  "Native?": flag,
  "SidecarService?": structSchema(sidecarShape),
  "PeerMeta?": objectOf({ "SNI?": texts, "SpiffeID?": texts, "Protocol?": text }),
});

const serviceMembers: Readonly<Record<string, JsonSchema>> = {
  "Kind?": text,
  ID: text,
  Service: text,
  Tags: texts,
  Address: text,
  "TaggedAddresses?": addressesSchema,
  Meta: textsByKeyOrNull,
  "Port?": integer,
  "Ports?": portsSchema,
  "SocketPath?": text,
  Weights: weightsSchema,
  EnableTagOverride: flag,
  "Locality?": localitySchema,
  Proxy: proxySchema,
  Connect: connectSchema,
  "PeerName?": text,
  CreateIndex: index,
  ModifyIndex: index,
};

export const serviceSchema: JsonSchema = objectOf(serviceMembers);

/** A service as its own node tells of it. */
export const ownServiceSchema: JsonSchema = objectOf({
  "ContentHash?": text,
  "Kind?": text,
  ID: text,
  Service: text,
  Tags: texts,
  Meta: textsByKey,
  Port: integer,
  "Ports?": portsSchema,
  Address: text,
  "SocketPath?": text,
  "TaggedAddresses?": addressesSchema,
  Weights: weightsSchema,
  EnableTagOverride: flag,
  "Proxy?": ownProxySchema,
  "Connect?": connectSchema,
  Datacenter: text,
  "Locality?": localitySchema,
});

const checkMembers: Readonly<Record<string, JsonSchema>> = {
  Node: text,
  CheckID: text,
  Name: text,
  Status: text,
  Notes: text,
  Output: text,
  ServiceID: text,
  ServiceName: text,
  ServiceTags: texts,
  Type: text,
  Interval: text,
  Timeout: text,
  ExposedPort: integer,
  "PeerName?": text,
  Definition: structSchema(checkDefinitionShape),
  CreateIndex: index,
  ModifyIndex: index,
};

export const checkSchema: JsonSchema = objectOf(checkMembers);

/** An instance with its node and the checks of both. */
export const instanceSchema: JsonSchema = objectOf({
  Node: nodeSchema,
  Service: serviceSchema,
  Checks: listOf(checkSchema),
});

/** An instance with its node in one flat object. */
export const flatInstanceSchema: JsonSchema = objectOf({
  ID: text,
  Node: text,
  Address: text,
  Datacenter: text,
  TaggedAddresses: textsByKeyOrNull,
  NodeMeta: textsByKeyOrNull,
  ServiceKind: text,
  ServiceID: text,
  ServiceName: text,
  ServiceTags: texts,
  ServiceAddress: text,
  "ServiceTaggedAddresses?": addressesSchema,
  ServiceWeights: weightsSchema,
  ServiceMeta: textsByKey,
  ServicePort: integer,
  "ServicePorts?": portsSchema,
  ServiceSocketPath: text,
  ServiceEnableTagOverride: flag,
  ServiceProxy: proxySchema,
  ServiceConnect: connectSchema,
  ServiceLocality: orNull(localitySchema),
  "PeerName?": text,
  CreateIndex: index,
  ModifyIndex: index,
});

/** Where Consul tells that there are no tags as `null`. */
export const looseServiceSchema: JsonSchema = objectOf({ ...serviceMembers, Tags: textsOrNull });
export const looseCheckSchema: JsonSchema = objectOf({ ...checkMembers, ServiceTags: textsOrNull });

/** A node with everything on it, as Consul's own pages read it. */
export const nodeContentsSchema: JsonSchema = objectOf({
  ID: text,
  Node: text,
  "PeerName?": text,
  Address: text,
  TaggedAddresses: textsByKeyOrNull,
  Meta: textsByKeyOrNull,
  Services: listOf(looseServiceSchema),
  Checks: listOf(looseCheckSchema),
});
