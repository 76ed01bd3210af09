// Shows everything in a peering token but the secret.
//
//   node build/examples/inspect-token.js TOKEN     or a token on standard input: ... inspect-token.js - < token.txt
//   node build/examples/inspect-token.js           makes one, to have something to show
import { readFileSync } from "node:fs";
import { createHost, PeeringError, TokenCodec } from "peerage";
import { memoryStorage } from "peerage/storage/memory";
import { memoryNetwork } from "peerage/transport/memory";

async function sampleToken(): Promise<string> {
  await using host = await createHost({
    datacenter: "dc1",
    storage: memoryStorage(),
    transport: memoryNetwork().transport({ listen: "peering.example.com:8503" }),
  });
  return host.peerings.generateToken({ peerName: "west" });
}

const [, , argument] = process.argv;
const token = argument === "-" ? readFileSync(0, "utf8").trim() : (argument ?? (await sampleToken()));

try {
  const description = TokenCodec.inspect(token, Date.now());
  console.log(`written by   Consul ${description.writtenBy}, or what speaks like it`);
  console.log(`peering id   ${description.peerId}`);
  console.log(`server name  ${description.serverName}`);
  console.log(`dial         ${description.dialAddresses.join(", ")}`);
  console.log(`datacenter   ${description.remote.datacenter}`);
  console.log(`encryption   ${description.plaintext ? "none" : "TLS"}`);
  for (const { subject, notAfter } of description.certificates) {
    console.log(`trusts       ${subject}, until ${new Date(notAfter).toISOString()}`);
  }
  for (const warning of description.warnings) console.log(`warning      ${warning}`);
  for (const problem of description.problems) console.log(`problem      ${problem}`);
  process.exitCode = description.problems.length === 0 ? 0 : 1;
} catch (error) {
  if (!(error instanceof PeeringError)) throw error;
  console.error(`not a peering token: ${error.message}`);
  process.exitCode = 1;
}
