import { transportSuite } from "../../src/testing/transport-suite.js";
import { grpcTransport } from "../../src/transport/grpc.js";
import { memoryNetwork } from "../../src/transport/memory.js";
import { fixedIdentity, newAuthority, newLeaf, SERVER_NAME } from "../unit/transport/certificates.js";
import { startRelay } from "../unit/transport/relay.js";

const maxReceiveFromDialerBytes = 1024 * 1024;
const maxReceiveFromAcceptorBytes = 512 * 1024;
const authority = await newAuthority("Root");
const identity = fixedIdentity(await newLeaf(authority));
const trusted = { serverName: SERVER_NAME, caPems: [authority.certificatePem] };

transportSuite("memory", async () => {
  const network = memoryNetwork();
  const options = { maxReceiveFromDialerBytes, maxReceiveFromAcceptorBytes };
  const acceptor = network.transport({ listen: "a:0", ...options });
  const dialer = network.transport(options);
  return {
    acceptor,
    dialer,
    identity,
    target: (address) => ({ address, ...trusted }),
    another: (address) => network.transport({ listen: address }),
    cut: () => network.cut(),
    openHandles: () => network.openStreams,
    maxReceiveFromDialerBytes,
    maxReceiveFromAcceptorBytes,
    async [Symbol.asyncDispose]() {
      await Promise.all([acceptor[Symbol.asyncDispose](), dialer[Symbol.asyncDispose]()]);
    },
  };
});

for (const security of ["TLS", "plaintext"] as const) {
  transportSuite(`grpc (${security})`, async () => {
    const relay = await startRelay();
    const limits = { maxReceiveFromDialerBytes, maxReceiveFromAcceptorBytes };
    const listening = (address: string) =>
      grpcTransport(security === "TLS" ? { listen: address, limits } : { plaintextListen: address, limits });
    const acceptor = listening("127.0.0.1:0");
    const dialer = grpcTransport({ limits });
    return {
      acceptor,
      dialer,
      identity,
      target(address) {
        relay.forwardTo(address);
        return security === "TLS"
          ? { address: relay.address, ...trusted }
          : { address: relay.address, serverName: "", caPems: [] };
      },
      another: listening,
      cut: () => relay.cut(),
      openHandles: () => process.getActiveResourcesInfo().filter((kind) => /TCP|TLS|Timeout/.test(kind)).length,
      maxReceiveFromDialerBytes,
      maxReceiveFromAcceptorBytes,
      async [Symbol.asyncDispose]() {
        await Promise.all([acceptor[Symbol.asyncDispose](), dialer[Symbol.asyncDispose]()]);
        await relay[Symbol.asyncDispose]();
      },
    };
  });
}
