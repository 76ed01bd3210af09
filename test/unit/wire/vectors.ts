import { type ReplicationMessage, ResourceId, ResourceUrl } from "../../../src/wire/messages.js";
import { readGolden } from "../../golden/read.js";

/** Name to hex (the last one: base64). */
export const vectorBytes: ReadonlyMap<string, string> = new Map(
  Object.entries(JSON.parse(readGolden("frames/vectors.json"))).map(([name, bytes]) => [name, String(bytes)]),
);

const peerId = "caf067a6-f112-4907-9101-d45857d2b149";

function response(
  nonce: string,
  resourceUrl: string,
  resourceId: string,
  value: string,
): ReplicationMessage & { type: "response" } {
  const resource = { typeUrl: resourceUrl, value: new Uint8Array(Buffer.from(value, "hex")) };
  return { type: "response", nonce, resourceUrl, resourceId, operation: 1, resource };
}

const messages: readonly [name: string, message: ReplicationMessage][] = [
  ["heartbeat", { type: "heartbeat" }],
  ["terminated", { type: "terminated" }],
  [
    "open, Remote.Datacenter = dc2",
    {
      type: "open",
      peerId,
      streamSecretId: "522c0daf-2ef2-4dab-bc78-5e04e3daf552",
      remote: { partition: "", datacenter: "dc2" },
    },
  ],
  [
    "dialer subscribes to ExportedService (with PeerID)",
    { type: "request", peerId, responseNonce: "", resourceUrl: ResourceUrl.exportedService },
  ],
  [
    "acceptor subscribes to ExportedServiceList (no PeerID)",
    { type: "request", peerId: "", responseNonce: "", resourceUrl: ResourceUrl.exportedServiceList },
  ],
  [
    "ACK of nonce 00000001, PeeringTrustBundle",
    { type: "request", peerId: "", responseNonce: "00000001", resourceUrl: ResourceUrl.trustBundle },
  ],
  [
    'NACK of nonce 24, ExportedService, code 3, message: unsupported operation: "OPERATION_UNSPECIFIED"',
    {
      type: "request",
      peerId: "",
      responseNonce: "24",
      resourceUrl: ResourceUrl.exportedService,
      error: { code: 3, message: 'unsupported operation: "OPERATION_UNSPECIFIED"' },
    },
  ],
  [
    "response 00000002, empty ExportedServiceList",
    response("00000002", ResourceUrl.exportedServiceList, ResourceId.exportedServiceList, ""),
  ],
  [
    "response 00000005, ExportedServiceList [web]",
    response("00000005", ResourceUrl.exportedServiceList, ResourceId.exportedServiceList, "0a03776562"),
  ],
  [
    "response 00000003, PeeringServerAddresses [198.18.0.1:8503]",
    response("00000003", ResourceUrl.serverAddresses, ResourceId.serverAddresses, "0a0f3139382e31382e302e313a38353033"),
  ],
  [
    "response 00000007, ExportedService web without nodes",
    response("00000007", ResourceUrl.exportedService, "web", ""),
  ],
  [
    "response 00000006, ExportedService web with instance X2",
    response(
      "00000006",
      ResourceUrl.exportedService,
      "web",
      "0aa2010a3d0a2461663931333337342d363865612d343165352d383265382d36666664336466666334363112066e6f64652d31" +
        "1a0831302e302e302e312203646331121c12057765622d311a037765622202763138903f42040801100182" +
        "01001a430a066e6f64652d3112137765622d313a6f766572616c6c2d636865636b1a0d6f766572616c6c2d636865636b22" +
        "0770617373696e673a057765622d3142037765626a00",
    ),
  ],
];

/** Envelopes as bytes, each with the message that it means. */
export const vectors: readonly { name: string; message: ReplicationMessage; bytes: string }[] = messages.map(
  ([name, message]) => ({ name, message, bytes: vectorBytes.get(name) ?? "missing" }),
);
