import { isIP } from "node:net";
import { networkInterfaces } from "node:os";
import { joinHostPort, readHostPort } from "../base/host-port.js";
import type { JsonObject } from "../client/index.js";
import { CommandError } from "./command.js";
import type { ParsedFlags } from "./flags.js";

// The registration of a mesh gateway, as `consul connect envoy -register` makes it (1.21).

/** Where a mesh gateway listens by itself. */
const GATEWAY_PORT = 8443;

interface Place {
  readonly host: string;
  readonly port: number;
}

export interface GatewayRegistration extends JsonObject {
  readonly Name: string;
  readonly ID: string;
}

export function gatewayRegistration(flags: ParsedFlags, id: string, name: string): GatewayRegistration {
  const [lan, wan] = (["address", "wan-address"] as const).map((flag) => {
    const text = flags.text(flag);
    return text === "" ? undefined : gatewayPlace(flag, text);
  });
  const tagged = ({ host, port }: Place) => ({ Address: host, Port: port });
  const port = lan?.port ?? GATEWAY_PORT;
  return {
    Kind: "mesh-gateway",
    Name: name,
    ID: id,
    Address: lan?.host ?? "",
    Port: port,
    TaggedAddresses: { ...(lan?.host && { lan: tagged(lan) }), ...(wan?.host && { wan: tagged(wan) }) },
    ...proxyOf(flags.texts("bind-address"), lan, wan),
    Check: {
      Name: "mesh-gateway listening",
      TCP: joinHostPort(lan?.host || "127.0.0.1", port),
      Interval: "10s",
      DeregisterCriticalServiceAfter: flags.text("deregister-after-critical"),
    },
  };
}

function proxyOf(bound: readonly string[], lan: Place | undefined, wan: Place | undefined) {
  if (bound.length > 0) {
    const addresses = bound.map((text) => {
      const equals = text.indexOf("=");
      if (equals < 1) throw new CommandError(`-bind-address: no name=ip:port: ${text}`);
      const { host, port } = gatewayPlace("bind-address", text.slice(equals + 1));
      return [text.slice(0, equals), { Address: host, Port: port }] as const;
    });
    const config = { envoy_gateway_no_default_bind: true, envoy_gateway_bind_addresses: Object.fromEntries(addresses) };
    return { Proxy: { Config: config } };
  }
  if (lan !== undefined && lan.host !== "" && !canBind(lan)) {
    throw new CommandError(
      `The LAN address "${lan.host}" will not be bindable. Either set a bindable address or override the bind addresses with -bind-address`,
    );
  }
  if (lan === undefined || wan === undefined || !canBind(lan) || !canBind(wan)) return {};
  return { Proxy: { Config: { envoy_gateway_no_default_bind: true, envoy_gateway_bind_tagged_addresses: true } } };
}

/** Whether an address is one of this machine. */
function canBind({ host }: Place): boolean {
  return Object.values(networkInterfaces()).some((addresses = []) => addresses.some(({ address }) => address === host));
}

/** `ip:port`, or an IP alone, whose port is then that of gateways. */
function gatewayPlace(flag: string, text: string): Place {
  if (text.includes("{{")) throw new CommandError(`-${flag}: templates of addresses are not known here: ${text}`);
  if (isIP(text) !== 0) return { host: text, port: GATEWAY_PORT };
  const found = readHostPort(text);
  if (typeof found === "string") throw new CommandError(`-${flag}: no host:port: ${text}`);
  return found;
}
