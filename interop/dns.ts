import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type DecodedPacket, decode, encode } from "dns-packet";

const PATIENCE_MS = 5_000;

/** Asks the DNS server on a port of 127.0.0.1 over UDP. */
export async function askDns(port: number, name: string, type: "A" | "SRV"): Promise<DecodedPacket> {
  const socket = createSocket("udp4");
  try {
    const query = encode({ type: "query", id: 1, flags: 0, questions: [{ type, name }] });
    socket.send(query, port, "127.0.0.1");
    const [answer] = await once(socket, "message", { signal: AbortSignal.timeout(PATIENCE_MS) });
    return decode(answer);
  } finally {
    socket.close();
  }
}
