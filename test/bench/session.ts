/**
 * How many messages a second one core takes through two sessions, without wire and storage: exports through the one, its
 * responses into the other, the answers back. Run it with `node --import tsx test/bench/session.ts [services]`.
 */
import { ReplicationSession } from "../../src/replication/session.js";
import type { AppliedResult, ExportedResource, SessionInput, SessionOutput } from "../../src/replication/types.js";
import type { ReplicationMessage } from "../../src/wire/messages.js";
import { ResourceUrl } from "../../src/wire/messages.js";

const services = Number(process.argv[2] ?? 20_000);
const rounds = 10;
const value = new Uint8Array(2_000);
const exporter = new ReplicationSession({ role: "acceptor", maxSendBytes: 8 * 1024 * 1024 });
const importer = new ReplicationSession({
  role: "dialer",
  maxSendBytes: 50 * 1024 * 1024,
  remoteId: "peer",
  streamSecretId: "secret",
  remote: { partition: "", datacenter: "dc1" },
});

let handled = 0;
function sent(outputs: readonly SessionOutput[]): readonly ReplicationMessage[] {
  const messages: ReplicationMessage[] = [];
  for (const output of outputs) if (output.type === "send") messages.push(output.message);
  return messages;
}
function feed(session: ReplicationSession, input: SessionInput): readonly SessionOutput[] {
  return session.handle(input, performance.now());
}
/** Everything `from` gives out for now, taken by `to`; what `to` would apply is applied at once. */
function flow(from: ReplicationSession, to: ReplicationSession): void {
  while (from.wantsToSend) {
    const messages = sent(feed(from, { type: "writable", bytes: 256 * 1024 }));
    if (messages.length === 0) continue;
    handled += messages.length;
    const results: AppliedResult[] = [];
    for (const output of feed(to, { type: "received", messages })) {
      if (output.type === "apply") results.push({ id: output.id });
      if (output.type === "authorize") feed(to, { type: "authorized" });
      if (output.type === "close") throw output.error ?? new Error("closed");
    }
    if (results.length > 0) feed(to, { type: "applied", results });
  }
}

for (const session of [exporter, importer]) feed(session, { type: "start" });
flow(importer, exporter);
flow(exporter, importer);
flow(importer, exporter);

for (let round = 0; round < rounds; round++) {
  const resources: ExportedResource[] = [];
  for (let index = 0; index < services; index++) {
    resources.push({
      resourceUrl: ResourceUrl.exportedService,
      resourceId: `service-${index}`,
      value,
      digest: `${round}`,
    });
  }
  handled = 0;
  const start = performance.now();
  feed(exporter, { type: "exported", resources });
  flow(exporter, importer);
  flow(importer, exporter);
  const seconds = (performance.now() - start) / 1_000;
  if (exporter.status.unacknowledged !== 0) throw new Error("not everything was acknowledged");
  console.log(
    `${services} services, ${handled} messages: ${Math.round(handled / seconds).toLocaleString("en")} a second`,
  );
}
