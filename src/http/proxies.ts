import type { ConnectedProxy } from "../model/connected-proxy.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { HttpRefusal } from "./http-refusal.js";
import type { JsonSchema, Operation } from "./operation.js";
import { index, listOf, objectOf, text, texts, time } from "./operation-docs.js";
import { Visibility } from "./visibility.js";

// The Envoys that are connected, which Consul tells of in its log and its metrics alone.

async function proxies(call: Call): Promise<Answer> {
  const { nodeName, proxies: connected } = call.server;
  await call.require({ resource: "agent", access: "read", name: nodeName });
  if (connected === undefined) throw new HttpRefusal(501, "Envoys are not served by this program.");
  const visible = await Visibility.of(call, "");
  const shown = connected().filter(({ service }) => visible.service(service));
  return { json: shown.map(proxyJson), filtered: visible.filtered };
}

function proxyJson(proxy: ConnectedProxy) {
  const { id, node, service, kind, envoyVersion, connectedAt, waitsFor, missing, refusals, unanswered, resources } =
    proxy;
  return {
    ID: id,
    Node: node,
    Service: service,
    Kind: kind,
    EnvoyVersion: envoyVersion,
    ConnectedAt: new Date(connectedAt).toISOString(),
    WaitsFor: [...waitsFor],
    Missing: [...missing],
    Refusals: refusals.map(({ resourceType, nonce, names, message, at }) => ({
      Type: resourceType,
      Nonce: nonce,
      Names: [...names],
      Message: message,
      At: new Date(at).toISOString(),
    })),
    Unanswered: [...unanswered],
    Resources: { ...resources },
  };
}

const refusalSchema: JsonSchema = objectOf({ Type: text, Nonce: text, Names: texts, Message: text, At: time });

export const proxyOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/internal/peerage/proxies",
    run: proxies,
    docs: [
      {
        path: "/v1/internal/peerage/proxies",
        id: "listConnectedProxies",
        summary:
          "The Envoys that are connected: what each waits for, what it is not told of and why, and what it has refused.",
        parameters: [],
        answer: listOf(
          objectOf({
            ID: text,
            Node: text,
            Service: text,
            Kind: text,
            EnvoyVersion: text,
            ConnectedAt: time,
            WaitsFor: texts,
            Missing: texts,
            Refusals: listOf(refusalSchema),
            Unanswered: texts,
            Resources: objectOf({ secret: index, cluster: index, endpoint: index, listener: index, route: index }),
          }),
        ),
      },
    ],
  },
];
