// The targets of the checks of `checks.ts`, in a process of its own: an HTTP server, a TCP and a UDP port, and an HTTP/2 server
// that answers pings and health calls of gRPC. It counts what arrives.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";

/** On 127.0.0.1. */
export interface ProbedPorts {
  readonly http: number;
  readonly tcp: number;
  readonly udp: number;
  /** Without TLS. */
  readonly http2: number;
}

/** Probes that arrived. A ping and a health call of gRPC each take one connection. */
export interface ProbesSeen {
  readonly http: number;
  readonly tcp: number;
  readonly udp: number;
  readonly http2: number;
}

const none: ProbesSeen = { http: 0, tcp: 0, udp: 0, http2: 0 };
let seen: { -readonly [Kind in keyof ProbesSeen]: number } = { ...none };

/** A gRPC frame that holds `HealthCheckResponse { status: SERVING }`. */
const SERVING = Buffer.from([0, 0, 0, 0, 2, 0x08, 0x01]);

async function portOf(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1", 4_096);
  await once(server, "listening");
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === "string") throw new TypeError("no port");
  return address.port;
}

const http = createHttpServer((_, response) => {
  seen.http++;
  response.end("ok");
});
const tcp = createTcpServer((socket) => {
  seen.tcp++;
  socket.on("error", () => {});
  socket.resume().end();
});
const http2 = createHttp2Server();
http2.on("session", () => {
  seen.http2++;
});
http2.on("stream", (stream) => {
  stream.on("error", () => {});
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end(SERVING);
});
http2.on("sessionError", () => {});
const udp = createSocket("udp4", (message, from) => {
  seen.udp++;
  udp.send(message.length === 0 ? "x" : message, from.port, from.address);
});
udp.bind(0, "127.0.0.1");
await once(udp, "listening");
const ports: ProbedPorts = {
  http: await portOf(http),
  tcp: await portOf(tcp),
  udp: udp.address().port,
  http2: await portOf(http2),
};

process.on("message", (question) => {
  process.send?.(question === "ports" ? ports : seen);
  if (question === "seen") seen = { ...none };
});
process.once("disconnect", () => process.exit());
