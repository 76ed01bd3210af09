import { once } from "node:events";
import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";

/** Stands before an agent and counts what clients ask it: a client that asks again at once is seen, whatever it says of itself. */
export class CountingProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #paths: string[] = [];

  private constructor(target: string) {
    const [hostname, port] = target.split(":");
    this.#server = createServer((asked, answer) => {
      this.#paths.push(asked.url ?? "");
      const passed = request({
        ...{ hostname, port, method: asked.method, path: asked.url, headers: asked.headers },
      });
      passed.once("response", (response) => {
        answer.writeHead(response.statusCode ?? 502, response.headers);
        response.pipe(answer);
      });
      passed.once("error", () => answer.destroy());
      answer.once("close", () => passed.destroy());
      asked.pipe(passed);
    });
  }

  /** @param target - `host:port` of the agent. */
  static async before(target: string): Promise<CountingProxy> {
    const proxy = new CountingProxy(target);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  /** `host:port` for clients. */
  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** How often something below `path` was asked for. */
  count(path: string): number {
    return this.#paths.filter((asked) => asked.startsWith(path)).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }
}
