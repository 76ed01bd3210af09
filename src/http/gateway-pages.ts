import { joinHostPort } from "../base/host-port.js";
import { withoutTrailing } from "../base/trailing.js";
import { pauses } from "../base/turns.js";
import type { ConfigEntry } from "../config/config-entry.js";
import type { Listing } from "../model/listing.js";
import { SummaryMaker } from "../model/service-summary.js";
import { lowerCase } from "../syntax/names.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import { instancesOf } from "./discovery.js";
import { discoveryParameters } from "./discovery-docs.js";
import { namedOptions } from "./discovery-options.js";
import { type Link, linksOf } from "./gateways.js";
import { forEach, gathered, kept } from "./in-turns.js";
import { intentionJson, intentionSchema, intentionsOf, mayRead, toDestination } from "./intentions.js";
import { type Json, LazyList } from "./json.js";
import type { Operation } from "./operation.js";
import { listOf, objectOf, texts } from "./operation-docs.js";
import { answerFromAll, ownSummaryFields, summaryJson } from "./ui.js";
import { Visibility } from "./visibility.js";

// The reads of Consul's pages about a gateway (1.21).

/** Where names of ingress gateways end in DNS. */
const DOMAIN = "consul";

function entryOf({ host: { configEntries } }: Call, gateway: string): ConfigEntry | undefined {
  return configEntries.get("terminating-gateway", gateway) ?? configEntries.get("ingress-gateway", gateway);
}

/** By lower-cased name of the service: a gateway may listen for it in several places. */
async function linksByService(links: Listing<Link>): Promise<ReadonlyMap<string, readonly [Link, ...Link[]]>> {
  const byService = new Map<string, [Link, ...Link[]]>();
  await forEach(links, (link) => {
    const known = byService.get(lowerCase(link.service));
    if (known === undefined) byService.set(lowerCase(link.service), [link]);
    else known.push(link);
  });
  return byService;
}

/** The services behind a gateway, and where they are reached. */
async function services(call: Call): Promise<Answer> {
  const options = namedOptions(call, "gateway name");
  await call.require({ resource: "service", access: "read", name: options.name });
  const visible = await Visibility.of(call, "");
  return answerFromAll(call, options, async () => {
    const every = await linksOf(call, entryOf(call, options.name));
    const links = await kept(every, ({ service }) => visible.service(service));
    const json: Json[] = [];
    const pause = pauses();
    for (const ofService of (await linksByService(links)).values()) {
      await pause();
      const maker = new SummaryMaker(ofService[0].service);
      await forEach(await instancesOf(call, "", ofService[0].service), (view) => {
        if (visible.instance(view)) maker.add(view);
      });
      const addresses = ofService.flatMap((link) => addressesOf(call, link));
      const gateway = { Addresses: addresses.length === 0 ? undefined : [...new Set(addresses)] };
      json.push(summaryJson(maker.summary(), gateway));
    }
    return { json, filtered: visible.filtered };
  });
}

/** Where a service is reached through an ingress gateway. */
function addressesOf({ host }: Call, { service, listener }: Link): readonly string[] {
  if (listener === undefined) return [];
  const { hosts, port } = listener;
  const names = hosts.length > 0 ? hosts : [`${service}.ingress.${host.datacenter}.${DOMAIN}`];
  return names.map((name) => joinHostPort(withoutTrailing(name, "."), port));
}

/** The intentions of the services behind a gateway, and those for all services. */
async function intentions(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const options = namedOptions(call, "gateway name");
  await call.require({ resource: "service", access: "read", name: options.name });
  const access = await call.access();
  return answerFromAll(call, options, async () => {
    const links = await linksOf(call, entryOf(call, options.name));
    const names = links.length === 0 ? [] : [...(await linksByService(links)).keys(), "*"];
    const found = await gathered(names, (name) => toDestination(call, name).flatMap(intentionsOf));
    const shown = await kept(found, (intention) => mayRead(access, intention));
    return { json: LazyList.of(shown, intentionJson), filtered: shown.length < found.length };
  });
}

/** `/v1/internal/ui/gateway-…`. */
export const gatewayPageOperations: readonly Operation[] = [
  {
    method: "GET",
    pattern: "/v1/internal/ui/gateway-services-nodes/",
    run: services,
    docs: [
      {
        path: "/v1/internal/ui/gateway-services-nodes/{gateway}",
        id: "summariseGatewayServices",
        summary: "One summary for each service that a terminating or an ingress gateway leads to.",
        parameters: discoveryParameters,
        answer: listOf(objectOf({ ...ownSummaryFields, GatewayConfig: objectOf({ "Addresses?": texts }) })),
      },
    ],
  },
  {
    method: "GET",
    pattern: "/v1/internal/ui/gateway-intentions/",
    run: intentions,
    docs: [
      {
        path: "/v1/internal/ui/gateway-intentions/{gateway}",
        id: "listGatewayIntentions",
        summary:
          "The intentions of the services that a terminating or an ingress gateway leads to, and those for all services.",
        parameters: discoveryParameters,
        answer: listOf(intentionSchema),
      },
    ],
  },
];
