import type { ConsulClient, JsonObject } from "../client/index.js";
import { isJsonObject, memberOf, objectOf, textOf } from "../client/json-reader.js";
import { CommandError, type CommandLineIo } from "./command.js";
import { readOptions } from "./connection-flags.js";
import type { ParsedFlags } from "./flags.js";
import { attempt } from "./peering-commands.js";

// Which proxy `connect envoy` is about, and how it is registered.

/** The proxy as flags and environment name it. */
export interface AskedProxy {
  /** `""`: it is looked for. */
  readonly id: string;
  readonly sidecarFor: string;
  readonly isGateway: boolean;
  /** Of the gateway; `""`: it does not matter. */
  readonly service: string;
  /** `""`: the agent's own. */
  readonly node: string;
}

export interface FoundProxy {
  readonly id: string;
  readonly cluster: string;
  readonly source: string;
  readonly namespace: string;
  readonly partition: string;
  readonly datacenter: string;
  /** Opaque settings, with those of config entries. */
  readonly config: JsonObject;
}

const GATEWAY = "mesh-gateway";
const SIDECAR = "connect-proxy";

/** @throws {CommandError} for flags that cannot go together. */
export function askedProxy(flags: ParsedFlags, io: CommandLineIo): AskedProxy {
  const variable = (name: string): string => io.environment[name] ?? "";
  const kind = gatewayKind(flags);
  const isGateway = kind !== "";
  if (isGateway && kind !== "mesh") throw new CommandError("Gateway must be mesh: no other kind is served here");
  const [given, named] = [flags.text("sidecar-for"), flags.text("proxy-id")];
  if (given !== "" && (named !== "" || isGateway)) {
    throw new CommandError("Must specify one of -sidecar-for, -proxy-id and -gateway");
  }
  const id = named || (given === "" ? variable("CONNECT_PROXY_ID") : "");
  const sidecarFor = given || (id === "" && !isGateway ? variable("CONNECT_SIDECAR_FOR") : "");
  if (id === "" && sidecarFor === "" && !isGateway) {
    throw new CommandError("Must specify one of -sidecar-for, -proxy-id and -gateway");
  }
  const node = flags.text("node-name");
  if (node !== "" && id === "") throw new CommandError("'-node-name' requires '-proxy-id'");
  return { id, sidecarFor, isGateway, service: flags.text("service"), node };
}

function gatewayKind(flags: ParsedFlags): string {
  if (!flags.boolean("mesh-gateway")) return flags.text("gateway");
  if (flags.text("gateway") !== "") {
    throw new CommandError("The mesh-gateway flag is deprecated and cannot be used alongside the gateway flag");
  }
  return "mesh";
}

/** @param registered - the gateway was registered by this command. */
export async function foundProxy(
  client: ConsulClient,
  flags: ParsedFlags,
  asked: AskedProxy,
  registered: boolean,
): Promise<FoundProxy> {
  const gateway = asked.service || GATEWAY;
  const { id, name } =
    asked.id !== ""
      ? { id: asked.id, name: gateway }
      : registered
        ? { id: gateway, name: gateway }
        : await lookedFor(asked, () =>
            attempt("Error listing services", () => client.agent.services(readOptions(flags))),
          );
  const { service, datacenter } = await registrationOf(client, flags, id, asked.node);
  const kind = textOf(service, "Kind");
  const proxy = memberOf(service, "Proxy");
  if (!isJsonObject(proxy)) throw new CommandError(`Service ${id} is not a Connect proxy or gateway`);
  if (kind !== SIDECAR && kind !== GATEWAY) {
    throw new CommandError(`Proxy ${id} is of kind ${kind}: no kind but ${SIDECAR} and ${GATEWAY} is served here`);
  }
  const destination = textOf(proxy, "DestinationServiceName");
  return {
    id,
    cluster: destination || asked.sidecarFor || (asked.isGateway ? name : id),
    source: destination || textOf(service, "Service"),
    namespace: textOf(service, "Namespace") || flags.text("namespace"),
    partition: textOf(service, "Partition") || flags.text("partition"),
    datacenter,
    config: objectOf(proxy, "Config"),
  };
}

interface Registration {
  readonly service: JsonObject;
  readonly datacenter: string;
}

async function registrationOf(
  { agent, catalog }: ConsulClient,
  flags: ParsedFlags,
  id: string,
  node: string,
): Promise<Registration> {
  const options = readOptions(flags);
  if (node === "") {
    const service = await attempt(`Error reading service "${id}"`, () => agent.service(id, options));
    return { service, datacenter: textOf(service, "Datacenter") };
  }
  const filter = `ID == ${JSON.stringify(id)}`;
  const { value } = await attempt(`Error reading the services of node "${node}"`, () =>
    catalog.nodeServices(node, { ...options, filter, mergeCentralConfig: true }),
  );
  const [service] = value.Services;
  if (service === undefined) throw new CommandError(`Proxy service with ID "${id}" not found at node "${node}"`);
  return { service, datacenter: textOf(value.Node, "Datacenter") };
}

async function lookedFor(
  { sidecarFor, service: name }: AskedProxy,
  list: () => Promise<JsonObject>,
): Promise<{ readonly id: string; readonly name: string }> {
  const services = Object.values(await list()).filter(isJsonObject);
  const found = services.filter((service) => {
    const kind = textOf(service, "Kind");
    if (sidecarFor === "") return kind === GATEWAY && (name === "" || textOf(service, "Service") === name);
    const destination = textOf(objectOf(service, "Proxy"), "DestinationServiceID");
    return kind === SIDECAR && destination.toLowerCase() === sidecarFor.toLowerCase();
  });
  const [only, ...more] = found;
  const what = sidecarFor === "" ? "mesh gateway" : `sidecar proxy for ${sidecarFor}`;
  if (only === undefined) throw new CommandError(`No ${what} is registered with this agent`);
  if (more.length > 0) {
    const ids = found.map((service) => textOf(service, "ID")).join(", ");
    throw new CommandError(`More than one ${what} is registered with this agent: ${ids}`, {
      remedy: "Pass -proxy-id.",
    });
  }
  return { id: textOf(only, "ID"), name: textOf(only, "Service") };
}
