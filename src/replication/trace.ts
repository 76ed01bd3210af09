import type { ReplicationMessage } from "../wire/messages.js";

/**
 * The message as a trace or a log may show it: the stream secret of an `Open` is replaced by `hidden`, everything else is
 * the given message itself.
 */
export function redactMessage(message: ReplicationMessage): ReplicationMessage {
  return message.type === "open" ? { ...message, streamSecretId: "hidden" } : message;
}
