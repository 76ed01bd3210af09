// Connected proxies of `npm run bench:mesh`: they subscribe as Envoys do, and acknowledge all that they are told.
import { performance } from "node:perf_hooks";
import { TYPE_URLS } from "../src/mesh/xds/resources.js";
import type { ResourceType } from "../src/model/connected-proxy.js";
import { XdsClient } from "../test/support/xds-client.js";

const TYPES = Object.keys(TYPE_URLS) as readonly ResourceType[];

/** One proxy, which counts what it is told. */
export class BenchProxy implements AsyncDisposable {
  readonly #client: XdsClient;
  readonly #asked = new Set<string>();
  /** When it was told something last, on the monotonic clock. */
  toldAtMs = 0;
  /** Of the resources that it was told. */
  bytes = 0;
  responses = 0;
  readonly told = new Map<ResourceType, number>();
  /** Rejects where the stream ends. */
  readonly ended: Promise<void>;

  constructor(address: string, service: string) {
    this.#client = new XdsClient(address, { id: `${service}-sidecar-proxy`, node: `node-${service}` });
    this.#client.send("cluster");
    this.ended = this.#follow();
  }

  async #follow(): Promise<void> {
    for (;;) {
      const { typeUrl, nonce, resources } = await this.#client.next();
      this.toldAtMs = performance.now();
      this.responses++;
      for (const { resource } of resources) this.bytes += resource?.value.length ?? 0;
      const type = TYPES.find((each) => TYPE_URLS[each] === typeUrl);
      if (type === undefined) throw new Error(typeUrl);
      this.told.set(type, (this.told.get(type) ?? 0) + resources.length);
      if (type === "cluster") {
        const names = resources.flatMap(({ name }) => (name === "local_app" || this.#asked.has(name) ? [] : [name]));
        for (const name of names) this.#asked.add(name);
        if (names.length > 0) this.#client.send("endpoint", { resourceNamesSubscribe: names });
      }
      this.#client.send(type, { responseNonce: nonce });
      if (type === "cluster" && !this.told.has("listener")) this.#client.send("listener");
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]();
    await this.ended.catch(() => {});
  }
}
