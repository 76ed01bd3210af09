import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import { connect, createServer, type Server } from "node:net";

/** A server on a free port of 127.0.0.1. */
export async function served(server: Server): Promise<AsyncDisposable & { readonly port: number }> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    async [Symbol.asyncDispose]() {
      server.close();
    },
  };
}

/** How a program of the tests answers: each says its name, and what it was asked for. */
export type Speech = "tcp" | "http" | "grpc";

/** A program behind a sidecar. */
export function application(name: string, speech: Speech): ReturnType<typeof served> {
  return served(program(name, speech));
}

function program(name: string, speech: Speech): Server {
  switch (speech) {
    case "tcp":
      return createServer((socket) => {
        socket.on("error", () => {}).on("data", (word) => socket.end(`${name} ${String(word)}`));
      });
    case "http":
      return createHttpServer((request, response) => response.end(`${name} ${request.url}`));
    case "grpc": {
      const server = createHttp2Server();
      server.on("stream", (stream, headers) => {
        stream.on("error", () => {}).on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
        stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
        stream.end(framed(`${name} ${headers[":path"]}`));
      });
      return server;
    }
  }
}

const FRAME_HEADER_BYTES = 5;

function framed(text: string): Buffer {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt32BE(Buffer.byteLength(text), 1);
  return Buffer.concat([header, Buffer.from(text)]);
}

/** Asks an upstream in the name of a program behind a sidecar. `""`: the connection was ended without a byte. */
export async function ask(port: number, speech: Speech, path: string, host = "127.0.0.1"): Promise<string> {
  switch (speech) {
    case "tcp": {
      const socket = connect(port, host);
      socket.write(path);
      let text = "";
      for await (const chunk of socket) text += String(chunk);
      return text;
    }
    case "http": {
      const answer = await fetch(`http://${host}:${port}${path}`, { headers: { connection: "close" } });
      return `${answer.status} ${await answer.text()}`;
    }
    case "grpc":
      return call(`${host}:${port}`, path);
  }
}

/** Ends with the status of gRPC. */
async function call(address: string, path: string): Promise<string> {
  const session = connectHttp2(`http://${address}`);
  session.on("error", () => {});
  try {
    const stream = session.request({
      ...{ ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers" },
    });
    let status = "";
    stream.on("response", (headers) => {
      status ||= String(headers["grpc-status"] ?? "");
    });
    stream.on("trailers", (trailers) => {
      status ||= String(trailers["grpc-status"] ?? "");
    });
    stream.end(framed("hello"));
    const chunks: Buffer[] = [];
    for await (const chunk of stream) chunks.push(Buffer.from(chunk));
    return `${status} ${Buffer.concat(chunks).subarray(FRAME_HEADER_BYTES).toString()}`;
  } finally {
    session.destroy();
  }
}
