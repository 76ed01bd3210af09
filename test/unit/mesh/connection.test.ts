import assert from "node:assert/strict";
import { once } from "node:events";
import { Duplex } from "node:stream";
import { describe, it } from "node:test";
import type { TLSSocket } from "node:tls";
import { connectionError, MeshSocket } from "../../../src/mesh/connect/connection.js";

/** A socket that is told what the other side does. */
class ToldSocket extends Duplex {
  readonly written: string[] = [];
  timeoutMs = 0;

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    this.written.push(String(chunk));
    callback();
  }

  setTimeout(timeoutMs: number): this {
    this.timeoutMs = timeoutMs;
    return this;
  }
}

function connected(): { readonly socket: ToldSocket; readonly connection: MeshSocket } {
  const socket = new ToldSocket();
  const connection = new MeshSocket(socket as unknown as TLSSocket, { identity: "spiffe://x", address: "x:1" });
  return { socket, connection };
}

const alert = (code: string): Error => Object.assign(new Error("alert"), { code });

describe("a connection of the mesh", () => {
  it("fails with `permission-denied` where the other side sends an alert, though the handshake is over", async () => {
    for (const [code, text] of [
      ["ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", "certificate required"],
      ["ERR_SSL_TLSV1_ALERT_UNKNOWN_CA", "unknown ca"],
      ["ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN", "certificate unknown"],
    ] as const) {
      const { socket, connection } = connected();
      const failed = once(connection.resume(), "error");
      socket.destroy(alert(code));
      const [error] = await failed;
      assert.equal(error.code, "permission-denied");
      assert.equal(error.message, `the other side refused our certificate: ${text}`);
    }
  });

  it("fails as any connection does that is lost", () => {
    for (const code of ["ECONNRESET", "ERR_SSL_WRONG_VERSION_NUMBER"]) {
      assert.equal(connectionError(alert(code)).code, "unavailable");
    }
    assert.equal(connectionError("gone").message, "the connection was lost: gone");
  });

  it("ends where the other side ends after a byte, and fails where there was none", async () => {
    const { socket, connection } = connected();
    socket.push("a");
    socket.push(null);
    let text = "";
    for await (const chunk of connection) text += String(chunk);
    assert.equal(text, "a");
    const silent = connected();
    const failed = once(silent.connection.resume(), "error");
    silent.socket.push(null);
    assert.match((await failed)[0].message, /perhaps it is denied by an intention/);
  });

  it("stops reading while its reader does", async () => {
    const { socket, connection } = connected();
    const chunk = Buffer.alloc(connection.readableHighWaterMark);
    connection.read(0);
    for (let count = 0; count < 3; count++) socket.push(chunk);
    await once(connection, "readable");
    assert.equal(socket.isPaused(), true);
    assert.ok(connection.readableLength <= 2 * chunk.length);
    connection.destroy();
    assert.equal(socket.destroyed, true);
  });

  it("times out as a socket does, when it is asked to", async () => {
    const { socket, connection } = connected();
    const late = new Promise<void>((resolve) => connection.setTimeout(5, resolve));
    assert.equal(socket.timeoutMs, 5);
    socket.emit("timeout");
    await late;
  });
});
