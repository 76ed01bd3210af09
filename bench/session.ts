/**
 * How many messages a second one core takes through two sessions, without wire and storage: exports through the one, its
 * responses into the other, the answers back. Run it with `node --import tsx bench/session.ts [services]`.
 */
import { ReplicationSession } from "../src/replication/session.js";
import type { AppliedResult, ExportedResource, SessionInput } from "../src/replication/types.js";
import type { ReplicationMessage } from "../src/wire/messages.js";
import { ResourceUrl } from "../src/wire/messages.js";

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
/** Given out and not delivered yet. */
const outboxes = new Map<ReplicationSession, ReplicationMessage[]>([
  [exporter, []],
  [importer, []],
]);
function feed(session: ReplicationSession, input: SessionInput): void {
  const results: AppliedResult[] = [];
  for (const output of session.handle(input, performance.now())) {
    if (output.type === "send") outboxes.get(session)?.push(output.message);
    else if (output.type === "apply") results.push({ id: output.id });
    else if (output.type === "authorize") feed(session, { type: "authorized" });
    else if (output.type === "close") throw output.error ?? new Error("closed");
  }
  if (results.length > 0) feed(session, { type: "applied", results });
}
/** Everything `from` has to say, in writes of the size the host uses. What `to` would apply is applied at once. */
function flow(from: ReplicationSession, to: ReplicationSession): void {
  for (;;) {
    const messages = outboxes.get(from) ?? [];
    if (messages.length > 0) {
      outboxes.set(from, []);
      handled += messages.length;
      feed(to, { type: "received", messages });
    } else if (from.wantsToSend) {
      feed(from, { type: "writable", bytes: 256 * 1024 });
    } else {
      return;
    }
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
