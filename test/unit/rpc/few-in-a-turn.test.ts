import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { describe, it } from "node:test";
import { clearImmediate, setImmediate as setTurn } from "node:timers";
import { setImmediate } from "node:timers/promises";
import { FewInATurn } from "../../../src/rpc/few-in-a-turn.js";
import { httpServer } from "../../../src/rpc/http-server.js";
import { parseAddress } from "../../../src/transport/address.js";
import { eventually } from "../../support/hosts.js";

/** Counts turns of the event loop: the first in each, where it was made before all else that waits for one. */
class Turns implements Disposable {
  now = 0;
  #next = setTurn(() => this.#turn());

  #turn(): void {
    this.now++;
    this.#next = setTurn(() => this.#turn());
  }

  [Symbol.dispose](): void {
    clearImmediate(this.#next);
  }
}

describe("things that begin a few in a turn", () => {
  it("begin at once where few come, and the others in their order, so many in each turn", async () => {
    using turns = new Turns();
    const few = new FewInATurn(3);
    const begun: number[] = [];
    const inTurn = new Map<number, number>();
    const come = (number: number): void =>
      few.run(() => {
        begun.push(number);
        inTurn.set(turns.now, (inTurn.get(turns.now) ?? 0) + 1);
      });
    for (let number = 0; number < 8; number++) come(number);
    assert.deepEqual(begun, [0, 1, 2]);
    await setImmediate();
    come(8);
    while (begun.length < 9) await setImmediate();
    assert.deepEqual(begun, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert.deepEqual([...inTurn.values()], [3, 3, 3]);
    await setImmediate();
    await setImmediate();
    come(9);
    assert.equal(begun.at(-1), 9);
  });

  it("are the sessions of clients of HTTP/2 that come together", async () => {
    using turns = new Turns();
    const begun: number[] = [];
    await using server = await httpServer({
      listen: "127.0.0.1:0",
      rpc: (_request, response) => {
        begun.push(turns.now);
        response.end();
      },
    });
    const { host, port } = parseAddress(server.address);
    const clients: Socket[] = [];
    try {
      for (let at = 0; at < 40; at++) clients.push(connect({ host, port }));
      await Promise.all(clients.map((client) => once(client, "connect")));
      // Node accepts one connection in a turn; they are all there.
      for (let turn = 0; turn < 5 * clients.length; turn++) await setImmediate();
      // The preface, empty settings, and GET http://x/ as HPACK writes it.
      const headers = Buffer.from([0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 1, 0x78]);
      const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
      const hello = Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), settings, headers]);
      for (const client of clients) client.on("error", () => {}).write(hello);
      await eventually(() => begun.length === clients.length, "all are answered");
    } finally {
      for (const client of clients) client.destroy();
    }
    const counts = new Map<number, number>();
    for (const at of begun) counts.set(at, (counts.get(at) ?? 0) + 1);
    // Requests of the turn before may be answered in this one.
    assert.ok(Math.max(...counts.values()) <= 8, JSON.stringify([...counts]));
  });
});
