import { compareUtf8 } from "../base/byte-order.js";
import type { ConfigEntry, KeptEntry, TerminatingGatewayEntry } from "../config/config-entry.js";
import { ingressLinks } from "../config/ingress.js";
import type { JsonObject, JsonValue } from "../model/instance.js";
import { lowerCase } from "../syntax/names.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { discoveryParameters } from "./discovery-docs.js";
import { namedOptions } from "./discovery-options.js";
import { type Json, LazyList } from "./json.js";
import type { JsonSchema, Operation } from "./operation.js";
import { flag, index, listOf, objectOf, text, texts } from "./operation-docs.js";
import { consistencyOf } from "./query.js";
import { answerFromAll } from "./ui.js";
import { Visibility } from "./visibility.js";

/** A service behind a gateway. */
export interface Link {
  readonly service: string;
  readonly wildcard: boolean;
  /** Where an ingress gateway listens for it, and for which hosts. */
  readonly listener?: { readonly port: number; readonly hosts: readonly string[] };
  readonly json: Readonly<Record<string, Json | undefined>>;
}

/** The services behind a terminating gateway, by name: `*` is every ordinary service that is not named besides. */
function terminatingLinks({ host }: Call, { services }: TerminatingGatewayEntry): readonly Link[] {
  const { catalog } = host;
  const { entries } = host.configEntries;
  const kindOf = (key: string): string | undefined => {
    if (catalog.hasInstances(key)) return "service";
    return entries.isDestination(key) ? "destination" : undefined;
  };
  const json = (key: string, { CAFile, CertFile, KeyFile, SNI, DisableAutoHostRewrite }: JsonObject): Link["json"] => ({
    CAFile: textOf(CAFile),
    CertFile: textOf(CertFile),
    KeyFile: textOf(KeyFile),
    SNI: textOf(SNI),
    ServiceKind: kindOf(key),
    AutoHostRewrite: DisableAutoHostRewrite !== true || undefined,
  });
  const links = new Map<string, Link>();
  for (const { name, extra = {} } of services) {
    const key = lowerCase(name);
    if (name !== "*") links.set(key, { service: name, wildcard: false, json: json(key, extra) });
  }
  const every = services.find(({ name }) => name === "*");
  for (const [key, { name: service, ordinary }] of every === undefined ? [] : catalog.kinds()) {
    if (!ordinary || key === "consul" || links.has(key)) continue;
    links.set(key, { service, wildcard: true, json: json(key, every?.extra ?? {}) });
  }
  for (const [key, { name: service }] of every === undefined ? [] : entries.all("service-defaults")) {
    if (links.has(key) || !entries.isDestination(key)) continue;
    links.set(key, { service, wildcard: true, json: json(key, every?.extra ?? {}) });
  }
  return [...links.values()].sort((left, right) => compareUtf8(left.service, right.service));
}

/** The services behind an ingress gateway: `*` is every service of the mesh with the listener's protocol that is not named there. */
function ingressLinksOf({ host }: Call, entry: KeptEntry<"ingress-gateway">): readonly Link[] {
  const { catalog, configEntries } = host;
  const all = ingressLinks(entry);
  const links = all.flatMap(({ service, port, protocol, hosts }): readonly Required<Link>[] => {
    const listener = { port, hosts };
    const json = { Port: port, Protocol: protocol, Hosts: hosts.length === 0 ? undefined : hosts };
    if (service !== "*") return [{ service, wildcard: false, listener, json }];
    const named = new Set(all.filter((link) => link.port === port).map((link) => lowerCase(link.service)));
    return [...catalog.kinds()].flatMap(([key, { name, connectEnabled }]) =>
      connectEnabled && !named.has(key) && configEntries.entries.protocolOf(key) === protocol
        ? [{ service: name, wildcard: true, listener, json }]
        : [],
    );
  });
  return links.sort(
    (left, right) => compareUtf8(left.service, right.service) || left.listener.port - right.listener.port,
  );
}

function textOf(value: JsonValue | undefined): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** Gateways are our own: a peer in the query changes nothing, as in Consul. */
async function gatewayServices(call: Call): Promise<Answer> {
  const options = namedOptions(call, "gateway name");
  const gateway = options.name;
  await call.require({ resource: "service", access: "read", name: gateway });
  const visible = await Visibility.of(call, "");
  const answer = await answerFromAll(call, options, async () => {
    const { configEntries } = call.host;
    const stored =
      configEntries.stored("terminating-gateway", gateway) ?? configEntries.stored("ingress-gateway", gateway);
    const links = linksOf(call, stored?.entry).filter(({ service }) => visible.service(service));
    const json = LazyList.of(links, ({ service, wildcard, json }) => ({
      ...json,
      Gateway: { Name: stored?.entry.name },
      Service: { Name: service },
      GatewayKind: stored?.entry.kind,
      FromWildcard: wildcard || undefined,
      CreateIndex: stored?.createIndex,
      ModifyIndex: stored?.modifyIndex,
    }));
    return { json, filtered: visible.filtered };
  });
  return answer.read === undefined
    ? answer
    : { ...answer, read: { ...answer.read, consistency: consistencyOf(options) } };
}

/** The services behind a gateway by its entry. */
export function linksOf(call: Call, entry: ConfigEntry | undefined): readonly Link[] {
  if (entry?.kind === "terminating-gateway") return terminatingLinks(call, entry);
  return entry?.kind === "ingress-gateway" ? ingressLinksOf(call, entry) : [];
}

const linkSchema: JsonSchema = objectOf({
  Gateway: objectOf({ Name: text }),
  Service: objectOf({ Name: text }),
  GatewayKind: text,
  "CAFile?": text,
  "CertFile?": text,
  "KeyFile?": text,
  "SNI?": text,
  "Port?": index,
  "Protocol?": text,
  "Hosts?": texts,
  "FromWildcard?": flag,
  "ServiceKind?": text,
  CreateIndex: index,
  ModifyIndex: index,
  "AutoHostRewrite?": flag,
});

/** `/v1/catalog/gateway-services`. */
export const gatewayOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/catalog/gateway-services/",
    run: gatewayServices,
    docs: [
      {
        path: "/v1/catalog/gateway-services/{gateway}",
        id: "listGatewayServices",
        summary: "The services behind a terminating or an ingress gateway, by its config entry.",
        parameters: discoveryParameters,
        answer: listOf(linkSchema),
      },
    ],
  },
];
