import type { SecureClientSessionOptions } from "node:http2";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { TYPE_URLS } from "../../src/mesh/xds/resources.js";
import type { ResourceType } from "../../src/model/connected-proxy.js";
import {
  AggregatedDiscoveryService,
  type DeltaDiscoveryRequestSchema,
  type DeltaDiscoveryResponse,
} from "../../src/wire/envoy.js";

type Request = Exclude<MessageInitShape<typeof DeltaDiscoveryRequestSchema>, { readonly $typeName: string }>;

/** A stream as Envoy opens one, request by request. */
export class XdsClient implements AsyncDisposable {
  readonly #stop = new AbortController();
  readonly #requests: Request[] = [];
  readonly #responses: AsyncIterator<DeltaDiscoveryResponse>;
  #wake = (): void => {};
  #ended = false;

  /** @param token - `""`: none is shown. */
  constructor(
    address: string,
    options: {
      readonly id: string;
      readonly token?: string;
      readonly node?: string;
      readonly tls?: SecureClientSessionOptions;
    },
  ) {
    const { id, token = "", node, tls } = options;
    const scheme = tls === undefined ? "http" : "https";
    const transport = createGrpcTransport({ baseUrl: `${scheme}://${address}`, ...(tls && { nodeOptions: tls }) });
    const client = createClient(AggregatedDiscoveryService, transport);
    const headers = token === "" ? {} : { "x-consul-token": token };
    const first = { id, ...(node !== undefined && { metadata: { node_name: node } }) };
    const stream = client.deltaAggregatedResources(this.#sent(first), { headers, signal: this.#stop.signal });
    this.#responses = stream[Symbol.asyncIterator]();
  }

  async *#sent(node: NonNullable<Request["node"]>): AsyncGenerator<Request> {
    for (;;) {
      const next = this.#requests.shift();
      if (next !== undefined) yield { node, ...next };
      else if (this.#ended) return;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  send(type: ResourceType, request: Request = {}): void {
    this.#requests.push({ typeUrl: TYPE_URLS[type], ...request });
    this.#wake();
  }

  /** The next response. Rejects with the status that the stream ends with. */
  async next(): Promise<DeltaDiscoveryResponse> {
    const { value, done } = await this.#responses.next();
    if (done === true) throw new Error("the stream has ended");
    return value;
  }

  /** The names of the resources of the next response, which is acknowledged. */
  async acknowledged(type: ResourceType): Promise<readonly string[]> {
    const { typeUrl, resources, nonce } = await this.next();
    if (typeUrl !== TYPE_URLS[type]) throw new Error(`a response of type ${typeUrl}`);
    this.send(type, { responseNonce: nonce });
    return resources.map(({ name }) => name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true;
    this.#wake();
    this.#stop.abort();
    await this.#responses.next().catch(() => {});
  }
}
