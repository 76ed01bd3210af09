import { compareUtf8 } from "../catalog/byte-order.js";
import type { LinkedService, TerminatingGatewayEntry } from "../catalog/config-entry.js";
import type { JsonValue } from "../catalog/instance.js";
import { lowerCase } from "../catalog/names.js";
import type { StoredConfigEntry } from "../host/config-entries.js";
import type { Answer, Call } from "./call.js";
import { discoveryOptions, nameInPath, Visibility } from "./discovery.js";
import { discoveryParameters } from "./discovery-docs.js";
import type { Json } from "./json.js";
import { flag, index, listOf, objectOf, text } from "./operation-docs.js";
import type { JsonSchema, Operation } from "./routes.js";
import { answerFromAll } from "./ui.js";

/** A service behind a terminating gateway. */
interface Link {
  readonly service: string;
  readonly wildcard: boolean;
  /** There are ordinary instances of that name. */
  readonly typical: boolean;
  readonly extra: LinkedService["extra"];
}

/** What a gateway fronts, by name: `*` is every ordinary service that is not named besides. */
function linksOf(call: Call, { services }: TerminatingGatewayEntry): readonly Link[] {
  const typical = new Map<string, string>();
  for (const [key, kinds] of call.host.catalog.kinds()) if (kinds.typical) typical.set(key, kinds.name);
  const links = new Map<string, Link>();
  for (const { name, extra } of services) {
    if (name === "*") continue;
    const key = lowerCase(name);
    links.set(key, { service: name, wildcard: false, typical: typical.has(key), extra });
  }
  const every = services.find(({ name }) => name === "*");
  if (every !== undefined) {
    typical.delete("consul");
    for (const [key, service] of typical) {
      if (!links.has(key)) links.set(key, { service, wildcard: true, typical: true, extra: every.extra });
    }
  }
  return [...links.values()].sort((left, right) => compareUtf8(left.service, right.service));
}

function textOf(value: JsonValue | undefined): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** Consul's `GatewayService` (1.21). */
function linkJson(gateway: string, { service, wildcard, typical, extra = {} }: Link, stored: StoredConfigEntry): Json {
  const { CAFile, CertFile, KeyFile, SNI, DisableAutoHostRewrite } = extra;
  return {
    Gateway: { Name: gateway },
    Service: { Name: service },
    GatewayKind: "terminating-gateway",
    CAFile: textOf(CAFile),
    CertFile: textOf(CertFile),
    KeyFile: textOf(KeyFile),
    SNI: textOf(SNI),
    FromWildcard: wildcard || undefined,
    ServiceKind: typical ? "service" : undefined,
    CreateIndex: stored.createIndex,
    ModifyIndex: stored.modifyIndex,
    AutoHostRewrite: DisableAutoHostRewrite !== true || undefined,
  };
}

/** Gateways are our own: a peer in the query changes nothing, as in Consul. */
async function gatewayServices(call: Call): Promise<Answer> {
  const options = discoveryOptions(call);
  const gateway = nameInPath(call, "gateway name");
  await call.require({ resource: "service", access: "read", name: gateway });
  const visible = await Visibility.of(call, "");
  const answer = await answerFromAll(call, options, async () => {
    const stored = call.host.configEntries.stored("terminating-gateway", gateway);
    if (stored?.entry.kind !== "terminating-gateway") return { json: [], filtered: false };
    const { name } = stored.entry;
    const shown = linksOf(call, stored.entry).filter(({ service }) => visible.service(service));
    return { json: shown.map((link) => linkJson(name, link, stored)), filtered: visible.filtered };
  });
  return answer.read === undefined ? answer : { ...answer, read: { ...answer.read, consistency: "leader" } };
}

const linkSchema: JsonSchema = objectOf({
  Gateway: objectOf({ Name: text }),
  Service: objectOf({ Name: text }),
  GatewayKind: text,
  "CAFile?": text,
  "CertFile?": text,
  "KeyFile?": text,
  "SNI?": text,
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
        summary: "What a terminating gateway fronts, by its config entry.",
        parameters: discoveryParameters,
        answer: listOf(linkSchema),
      },
    ],
  },
];
