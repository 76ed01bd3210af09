import { PeeringError } from "../base/errors.js";
import type { ImportPart } from "../stores/import-store.js";
import type { WatchImportedServicesResponseSchema } from "../wire/gen/peerage/watch/v1/watch_pb.js";
import { StatusCode } from "../wire/status.js";
import type { MessageInit } from "./message.js";
import type { RpcCall } from "./rpc-call.js";
import { type MissingRight, Source, Watch } from "./watch.js";
import { instanceKey, instanceMessage } from "./watch-message.js";

type Response = MessageInit<typeof WatchImportedServicesResponseSchema>;
type Part = Extract<ImportPart, { readonly type: "part" }>;

/** A message stays far below the 4 MiB that clients of gRPC take by default, however large the instances are. */
const INSTANCES_BATCH = 50;

/**
 * Everything imported from a peer at one moment, then each change. Changes that a slow reader has not taken yet wait in the host's
 * import store: the former version of each changed service, once, shared by all slow readers.
 * @param service - `""`: all.
 */
export async function* watchImports(
  call: RpcCall,
  peer: string,
  service: string,
): AsyncGenerator<Response, void, undefined> {
  const { host } = call;
  using watch = new Watch(call, missingRight(peer));
  await watch.admit();
  const peering = host.peerings.read(peer);
  if (peering === undefined) throw notFound(peer);
  let gone = false;
  const forget = host.view.onChange((change) => {
    if (change.type !== "peering" || change.id !== peering.id || change.peering !== undefined) return;
    gone = true;
    watch.notice();
  });
  try {
    const options = { peer, signal: watch.signal, ...(service === "" ? {} : { service }) };
    using changes = new Source(host.imports.watchParts(options, INSTANCES_BATCH), watch.notice);
    for (;;) {
      if (gone) throw notFound(peer);
      const change = changes.take();
      if (change === undefined) {
        if (watch.silent) {
          watch.told();
          yield { event: { case: "heartbeat", value: {} } };
        }
        await watch.wait();
        await watch.admit();
        continue;
      }
      if (change.type === "complete") {
        yield { event: { case: "snapshotComplete", value: { revision: change.revision } } };
      } else if (change.type === "again") {
        throw new PeeringError("unavailable", "another host wrote: watch again", { status: StatusCode.Unavailable });
      } else {
        for (const message of messages(change)) {
          await watch.admit();
          yield message;
        }
      }
      watch.told();
    }
  } finally {
    forget();
  }
}

function notFound(peer: string): PeeringError {
  return new PeeringError("not-found", `Peering not found for ${JSON.stringify(peer)}`, {
    status: StatusCode.NotFound,
  });
}

/** A caller may read all imports or none, because rules name our services and nodes, not those of peers. */
function missingRight(peer: string): MissingRight {
  return (access) => {
    const readable = access.readable(peer);
    if (!readable.service("")) return { resource: "service", access: "read", scope: "all" };
    return readable.node("") ? undefined : { resource: "node", access: "read", scope: "all" };
  };
}

/** A part of a change as messages of a bounded size: all that is on one node comes in one part. */
function* messages({ service, revision, added, changed, removed, more }: Part): Generator<Response, void, undefined> {
  const upserted = [...added, ...changed];
  const total = upserted.length + removed.length;
  for (let start = 0; start < total; start += INSTANCES_BATCH) {
    const end = start + INSTANCES_BATCH;
    const value = {
      service,
      revision,
      upserted: upserted.slice(start, end).map(instanceMessage),
      removed: removed.slice(Math.max(0, start - upserted.length), Math.max(0, end - upserted.length)).map(instanceKey),
      more: more || end < total,
    };
    yield { event: { case: "change", value } };
  }
}
