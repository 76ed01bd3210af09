import { isDeepStrictEqual } from "node:util";
import { lowerCase } from "../syntax/names.js";

import type { PeeringSchema, WatchPeeringsResponseSchema } from "../wire/gen/peerage/watch/v1/watch_pb.js";
import type { MessageInit } from "./message.js";
import type { RpcCall } from "./rpc-call.js";
import { Source, Watch } from "./watch.js";
import { peeringMessage } from "./watch-message.js";

type Response = MessageInit<typeof WatchPeeringsResponseSchema>;

/**
 * Every peering, then each one that differs from its last message. Nothing is queued: the next message is made when the
 * caller can take it, so that a slow reader costs no more than the last message of each peering.
 * @param name - `""`: all.
 */
export async function* watchPeerings(call: RpcCall, name: string): AsyncGenerator<Response, void, undefined> {
  const { host, server } = call;
  using watch = new Watch(call, (access) => {
    const right = { resource: "peering", access: "read" } as const;
    return access.may(right) ? undefined : right;
  });
  await watch.admit();
  const isWatched = (candidate: string): boolean => name === "" || lowerCase(candidate) === lowerCase(name);
  using changes = new Source(
    host.peerings.watch({ signal: watch.signal, ...(name === "" ? {} : { name }) }),
    watch.notice,
  );
  const sent = new Map<string, { readonly name: string; readonly message: MessageInit<typeof PeeringSchema> }>();
  let complete = false;
  for (;;) {
    // The notice says only that something changed; the list of now may be newer.
    changes.take();
    const listed = host.peerings.list().filter((view) => isWatched(view.name));
    for (const listedView of listed) {
      await watch.admit();
      const { id, name } = listedView;
      const view = complete ? host.peerings.read(name) : listedView;
      if (view?.id !== id) continue;
      const message = peeringMessage(view);
      if (isDeepStrictEqual(sent.get(id)?.message, message)) continue;
      sent.set(id, { name, message });
      watch.told();
      yield { event: { case: "peering", value: message } };
    }
    const there = new Set(listed.map(({ id }) => id));
    for (const [id, { name }] of sent) {
      if (there.has(id)) continue;
      sent.delete(id);
      watch.told();
      yield { event: { case: "removed", value: { id, name } } };
    }
    if (!complete) {
      complete = true;
      watch.told();
      yield { event: { case: "snapshotComplete", value: {} } };
    } else if (watch.silent) {
      watch.told();
      yield { event: { case: "heartbeat", value: {} } };
    }
    await watch.wait(server.statusIntervalMs);
    await watch.admit();
  }
}
