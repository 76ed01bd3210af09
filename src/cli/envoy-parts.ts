import type { Printable } from "./output.js";

// Pieces of Envoy's JSON that several parts of a bootstrap are made of.

type Fields = Readonly<Record<string, Printable>>;

export function typed(name: string, fields: Fields): { readonly [key: string]: Printable } {
  return { "@type": `type.googleapis.com/${name}`, ...fields };
}

export function socketAddress({ host, port }: { readonly host: string; readonly port: number }): Printable {
  return { socket_address: { address: host, port_value: port } };
}

const HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/** A cluster with one endpoint. */
export function clusterOf(name: string, address: Printable, protocol: "http" | "http2", fields: Fields): Printable {
  return {
    name,
    type: "STATIC",
    ...fields,
    typed_extension_protocol_options: {
      [HTTP_OPTIONS]: typed(HTTP_OPTIONS, { explicit_http_config: { [`${protocol}_protocol_options`]: {} } }),
    },
    loadAssignment: { clusterName: name, endpoints: [{ lbEndpoints: [{ endpoint: { address } }] }] },
  };
}
