import { lookup } from "node:dns/promises";

/** An address of a host as the system knows it, an IPv4 one before others. @throws as `lookup`. */
export async function lookUp(host: string): Promise<string> {
  const addresses = await lookup(host, { all: true });
  return (addresses.find(({ family }) => family === 4) ?? addresses[0])?.address ?? host;
}
