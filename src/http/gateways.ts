import { compareUtf8 } from "../base/byte-order.js";
import { inShortTurns, sortSteps } from "../base/turns.js";
import type { ConfigEntry, KeptEntry, TerminatingGatewayEntry } from "../config/config-entry.js";
import { ingressLinks } from "../config/ingress.js";
import type { JsonObject, JsonValue } from "../model/instance.js";
import { lowerCase } from "../syntax/names.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { discoveryParameters } from "./discovery-docs.js";
import { namedOptions } from "./discovery-options.js";
import { forEach, kept } from "./in-turns.js";
import { type Json, LazyList } from "./json.js";
import { RECORDS } from "./kept-answers.js";
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
async function terminatingLinks({ host }: Call, { services }: TerminatingGatewayEntry): Promise<readonly Link[]> {
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
  await forEach(services, ({ name, extra = {} }) => {
    const key = lowerCase(name);
    if (name !== "*") links.set(key, { service: name, wildcard: false, json: json(key, extra) });
  });
  const every = services.find(({ name }) => name === "*");
  if (every !== undefined) {
    const add = (key: string, service: string): void => {
      links.set(key, { service, wildcard: true, json: json(key, every.extra ?? {}) });
    };
    await forEach([...catalog.kinds()], ([key, { name, ordinary }]) => {
      if (ordinary && key !== "consul" && !links.has(key)) add(key, name);
    });
    await forEach([...entries.all("service-defaults")], ([key, { name }]) => {
      if (!links.has(key) && entries.isDestination(key)) add(key, name);
    });
  }
  return inShortTurns(sortSteps([...links.values()], (left, right) => compareUtf8(left.service, right.service)));
}

/** The services behind an ingress gateway: `*` is every service of the mesh with the listener's protocol that is not named there. */
async function ingressLinksOf({ host }: Call, entry: KeptEntry<"ingress-gateway">): Promise<readonly Link[]> {
  const { catalog, configEntries } = host;
  const all = ingressLinks(entry);
  const links: Required<Link>[] = [];
  for (const { service, port, protocol, hosts } of all) {
    const listener = { port, hosts };
    const json = { Port: port, Protocol: protocol, Hosts: hosts.length === 0 ? undefined : hosts };
    if (service !== "*") {
      links.push({ service, wildcard: false, listener, json });
      continue;
    }
    const named = new Set(all.filter((link) => link.port === port).map((link) => lowerCase(link.service)));
    await forEach([...catalog.kinds()], ([key, { name, connectEnabled }]) => {
      if (!connectEnabled || named.has(key) || configEntries.entries.protocolOf(key) !== protocol) return;
      links.push({ service: name, wildcard: true, listener, json });
    });
  }
  const byPort = (left: Required<Link>, right: Required<Link>): number =>
    compareUtf8(left.service, right.service) || left.listener.port - right.listener.port;
  return inShortTurns(sortSteps(links, byPort));
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
    const links = await kept(await linksOf(call, stored?.entry), ({ service }) => visible.service(service));
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

/** The services behind a gateway by its entry; found in turns. */
export async function linksOf(call: Call, entry: ConfigEntry | undefined): Promise<readonly Link[]> {
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
    sources: RECORDS,
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
