// A process that uses up its descriptors by itself, for a test that starts it with few of them. Its output is one line of JSON.
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { connect } from "node:net";
import { Incidents } from "../../src/base/incidents.js";
import { httpServer } from "../../src/rpc/http-server.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { eventually } from "./hosts.js";

const incidents = new Incidents();
const seen = (kind: string): number => incidents.counts().get(kind) ?? 0;
const server = await httpServer({
  listen: "127.0.0.1:0",
  rpc: (_request, response) => {
    response.writeHead(200, {});
    response.end("answered");
  },
  incidents,
});
const port = Number(server.address.split(":")[1]);
const open = async (): Promise<boolean> => {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  await once(socket, "connect");
  return new Promise((resolve) => {
    socket.once("data", () => resolve(true));
    socket.once("close", () => resolve(false));
    socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  });
};
const before = await open();

const files: number[] = [];
try {
  for (;;) files.push(openSync("/dev/null", "r"));
} catch {
  // Every descriptor is taken.
}
await eventually(() => seen("descriptors-exhausted") > 0, "it is noticed without anybody who asks");
const whenExhausted = seen("descriptors-exhausted");
const transport = grpcTransport({ incidents });
const dialed = await transport
  .openStream({ address: "127.0.0.1:1", serverName: "", caPems: [] }, { signal: new AbortController().signal })
  .then(
    () => "connected",
    (error: Error) => error.message,
  );
const afterDial = seen("descriptors-exhausted");

for (const file of files) closeSync(file);
let again = false;
await eventually(async () => {
  again = await open();
  return again;
}, "the listener goes on");
console.log(JSON.stringify({ before, whenExhausted, dialed, afterDial, again }));
process.exit(0);
