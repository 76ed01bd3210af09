import { systemClock, systemRandom } from "../../base/environment.js";
import { memoryStorage } from "../../storage/memory.js";
import { builtInAuthority } from "../../trust/built-in-authority.js";
import { ServerCertificate } from "../../trust/server-certificate.js";
import { FakePeer, type FakePeerOptions } from "./fake-peer.js";
import { keepProtocol } from "./script.js";

/**
 * A fake cluster: it sends the messages that a test wants to the host under test, and shows those that it gets. It
 * speaks as Consul 1.14 to 1.22 do, over any transport, in either role, and misbehaves on command.
 */
export async function fakePeer(options: FakePeerOptions): Promise<FakePeer> {
  const { datacenter = "fake", clock = systemClock, random = systemRandom } = options;
  const authority = options.authority ?? (await builtInAuthority({ storage: memoryStorage(), clock, random }));
  const certificate = new ServerCertificate({ authority, datacenter, clock, random });
  await certificate.ready();
  const peer = new FakePeer({ script: keepProtocol, ...options, datacenter, clock, random, authority, certificate });
  await peer.listen();
  return peer;
}
