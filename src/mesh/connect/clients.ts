import { Agent, type AgentOptions, type ClientRequestArgs } from "node:http";
import { type ClientHttp2Session, connect, type SessionOptions } from "node:http2";
import type { Duplex } from "node:stream";
import { asPeeringError, PeeringError } from "../../base/errors.js";
import { parseName } from "../../dns/question.js";
import type { PeeringHost } from "../../host/host.js";
import { type MeshDialLimits, type MeshDialOptions, meshDial } from "./dial.js";
import type { MeshTarget } from "./routes.js";

export interface MeshAgentOptions extends MeshDialLimits {
  /** The service of this cluster in whose name requests are made. */
  readonly as: string;
  /** The domain of names. Default `consul`. */
  readonly domain?: string;
  /** Of `node:http`, such as `maxSockets`. Default: connections are kept for further requests, as many as are needed. */
  readonly agent?: AgentOptions;
}

/**
 * An agent for `http.request` and what is built on it: a request to `http://web.virtual.east.consul/` goes to the service `web` of
 * the peer `east` through the mesh, and one to `http://web.virtual.consul/` to that of this cluster. The names are those of Consul's DNS, which is not
 * asked. The scheme is `http:`, as for a sidecar: the mesh does the encryption.
 *
 * A kept connection goes on with the certificate that it began with. Requests of one agent are made in the name of one service.
 */
export function meshAgent(host: PeeringHost, options: MeshAgentOptions): Agent {
  return new MeshAgent(host, options);
}

class MeshAgent extends Agent {
  readonly #host: PeeringHost;
  readonly #options: MeshAgentOptions;

  constructor(host: PeeringHost, options: MeshAgentOptions) {
    super({ keepAlive: true, ...options.agent });
    this.#host = host;
    this.#options = options;
  }

  // Types want a stream at once. Node also takes one by the callback alone.
  override createConnection(
    { host, hostname }: ClientRequestArgs,
    created: (error: Error | null, stream: Duplex) => void = () => {},
  ): Duplex {
    const { as, domain = "consul", agent: _, ...limits } = this.#options;
    const connecting = async (): Promise<Duplex> => {
      const target = targetOf(hostname ?? host ?? "", domain);
      return meshDial(this.#host, { ...limits, ...target, as });
    };
    connecting().then(
      (stream) => created(null, stream),
      (error: unknown) => (created as (error: Error) => void)(asPeeringError(error, "unavailable")),
    );
    return undefined as unknown as Duplex;
  }
}

/** @throws {PeeringError} `invalid-argument`: it is no name of a service of the mesh. */
function targetOf(name: string, domain: string): MeshTarget {
  const settings = { domains: [domain.toLowerCase()], datacenter: "", bareLabelIsPeer: true, isPeering: () => true };
  const parsed = parseName(name, "A", settings);
  if (parsed.type === "inside" && parsed.lookup.type === "virtual") {
    const { service, peer } = parsed.lookup;
    return { service, peer };
  }
  throw new PeeringError("invalid-argument", `${JSON.stringify(name)} is no name of a service of the mesh`, {
    remedy: `Use <service>.virtual.${domain}, or <service>.virtual.<peer>.${domain}.`,
  });
}

export interface MeshHttp2Options extends MeshDialOptions {
  /** Of `node:http2`. */
  readonly session?: SessionOptions;
}

/**
 * A session of HTTP/2 with a service of the mesh, such as one that speaks gRPC. It is the caller's to close.
 * @throws {PeeringError} as {@link meshDial}.
 */
export async function meshHttp2(host: PeeringHost, options: MeshHttp2Options): Promise<ClientHttp2Session> {
  const { session, ...dial } = options;
  const connection = await meshDial(host, dial);
  const { service, peer } = options;
  // The URL selects the scheme and is the default of `:authority`; the connection stands already.
  const authority = `http://${[service, "virtual", ...(peer === undefined ? [] : [peer]), "consul"].join(".")}`;
  return connect(authority, { ...session, createConnection: () => connection });
}
