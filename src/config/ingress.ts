import type { JsonObject, JsonValue } from "../model/instance.js";
import type { KeptEntry } from "./config-entry.js";

/** A service behind a listener of an ingress gateway. */
export interface IngressLink {
  /** `*`: every service of the mesh. */
  readonly service: string;
  readonly port: number;
  readonly protocol: string;
  readonly hosts: readonly string[];
}

/** The services that the entry of an ingress gateway leads to, listener by listener. */
export function ingressLinks({ extra = {} }: KeptEntry<"ingress-gateway">): readonly IngressLink[] {
  return objects(extra["Listeners"]).flatMap((listener) => {
    const { Port, Protocol } = listener;
    return objects(listener["Services"]).map((service): IngressLink => {
      const { Name, Hosts } = service;
      return {
        service: typeof Name === "string" ? Name : "",
        port: typeof Port === "number" ? Port : 0,
        protocol: typeof Protocol === "string" ? Protocol : "",
        hosts: Array.isArray(Hosts) ? Hosts.filter((host) => typeof host === "string") : [],
      };
    });
  });
}

function objects(value: JsonValue | undefined): readonly JsonObject[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
