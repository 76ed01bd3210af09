import { IncomingMessage } from "node:http";
import { Socket } from "node:net";
import { Writable } from "node:stream";
import { setImmediate } from "node:timers/promises";
import { PeeringError } from "../base/errors.js";
import { isJsonObject, type JsonObject, memberOf } from "../client/json-reader.js";
import type { PeeringHost } from "../host/host.js";
import { httpHandler } from "../http/index.js";
import type { HttpListener, HttpResponse } from "../http/messages.js";
import { sidecarName } from "../payload/exported-payload.js";
import { lowerCase } from "../syntax/names.js";

/** Registered at the same time: storage commits them together. */
const TOGETHER = 16;

export interface Definitions {
  readonly services: readonly JsonObject[];
  readonly checks: readonly JsonObject[];
}

/**
 * Services and checks that the agent's configuration defines. They are registered by the very operations of the HTTP API, so
 * that a definition means the same in a file and in a request.
 */
export class DefinedServices {
  readonly #listener: HttpListener;
  /** Ids of those that definitions have registered, lower-cased: ids that differ in case alone are one. */
  readonly #services = new Set<string>();
  readonly #checks = new Set<string>();

  constructor(host: PeeringHost) {
    // Definitions of the configuration need no token.
    this.#listener = httpHandler(host);
  }

  /**
   * Registers these, and removes those that were defined before and are no longer. Of one that is defined twice the last one
   * counts. A later call goes on where one has failed, so that nothing stays that no file defines.
   * @throws {PeeringError} `invalid-argument`: one cannot be registered; those before it are, and a few behind it. Or one cannot be
   *   removed; all others are.
   */
  async replace({ services, checks }: Definitions): Promise<void> {
    await each(services, async (service) => {
      await this.#put(`service ${nameOf(service)}`, "service/register?replace-existing-checks", service);
      for (const id of serviceIdsOf(service)) this.#services.add(id);
    });
    await each(checks, async (check) => {
      await this.#put(`check ${nameOf(check)}`, "check/register", check);
      this.#checks.add(idOf(check));
    });
    const failures = [
      ...(await this.#removeAll("check", this.#checks, new Set(checks.map(idOf)))),
      ...(await this.#removeAll("service", this.#services, new Set(services.flatMap(serviceIdsOf)))),
    ];
    if (failures.length > 0) throw failures[0];
  }

  /** Removes those that are not defined any more. @returns why some could not be removed. */
  async #removeAll(kind: string, ids: Set<string>, defined: ReadonlySet<string>): Promise<readonly unknown[]> {
    const failures: unknown[] = [];
    for (const id of [...ids]) {
      if (defined.has(id)) continue;
      // A storage in memory answers at once: others have their turn in between.
      await setImmediate();
      try {
        await this.#remove(kind, id);
        ids.delete(id);
      } catch (error) {
        failures.push(error);
      }
    }
    return failures;
  }

  async #put(what: string, path: string, body: JsonObject): Promise<void> {
    const { status, text } = await this.#call(path, JSON.stringify(body));
    if (status !== 200) throw new PeeringError("invalid-argument", `Failed to register ${what}: ${text}`);
  }

  async #remove(kind: string, id: string): Promise<void> {
    const { status, text } = await this.#call(`${kind}/deregister/${encodeURIComponent(id)}`, "");
    // Another caller may have removed it.
    if (status !== 200 && status !== 404) {
      throw new PeeringError("invalid-argument", `Failed to deregister ${kind} ${JSON.stringify(id)}: ${text}`);
    }
  }

  /** A request without a connection. */
  #call(path: string, body: string): Promise<{ readonly status: number; readonly text: string }> {
    const socket = new Socket();
    const request = new IncomingMessage(socket);
    request.method = "PUT";
    request.url = `/v1/agent/${path}`;
    request.httpVersion = "1.1";
    request.headers = { "content-length": String(Buffer.byteLength(body)) };
    request.push(body);
    request.push(null);
    request.complete = true;
    return new Promise((resolve) => {
      this.#listener(request, new LocalResponse(resolve));
    });
  }
}

/** An answer that is kept instead of sent. */
class LocalResponse extends Writable implements HttpResponse {
  #status = 0;

  constructor(done: (answer: { readonly status: number; readonly text: string }) => void) {
    const chunks: Buffer[] = [];
    super({
      write: (chunk: Buffer, _encoding, written) => {
        chunks.push(chunk);
        written();
      },
      // After all of it, and where the answer could not be made.
      destroy: (error, closed) => {
        done({ status: this.#status, text: Buffer.concat(chunks).toString() });
        closed(error);
      },
    });
  }

  setHeader(): void {}

  addTrailers(): void {}

  writeHead(status: number): void {
    this.#status = status;
  }
}

/** A few at a time, but those of one id one after another. */
async function each(definitions: readonly JsonObject[], register: (one: JsonObject) => Promise<void>): Promise<void> {
  for (let begin = 0; begin < definitions.length; ) {
    const ids = new Set<string>();
    const some = definitions.slice(begin, begin + TOGETHER);
    const repeated = some.findIndex((one) => ids.has(idOf(one)) || !ids.add(idOf(one)));
    const free = repeated < 0 ? some : some.slice(0, repeated);
    begin += free.length;
    await setImmediate();
    const results = await Promise.allSettled(free.map(register));
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }
}

/** Lower-cased. Without an id the name is the id. */
function idOf(definition: JsonObject): string {
  const id = memberOf(definition, "ID") || memberOf(definition, "Name");
  return typeof id === "string" ? lowerCase(id) : "";
}

/** Of a service, and of the sidecar that is registered with it. */
function serviceIdsOf(definition: JsonObject): readonly string[] {
  const id = idOf(definition);
  const connect = memberOf(definition, "Connect");
  const sidecar = isJsonObject(connect) ? memberOf(connect, "SidecarService") : undefined;
  return isJsonObject(sidecar) ? [id, sidecarName(id)] : [id];
}

function nameOf(definition: JsonObject): string {
  return JSON.stringify(memberOf(definition, "Name") ?? "");
}
