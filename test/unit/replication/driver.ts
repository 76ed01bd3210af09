import { ReplicationSession } from "../../../src/replication/session.js";
import type {
  ExportedResource,
  SessionInput,
  SessionOptions,
  SessionOutput,
  SessionStatus,
} from "../../../src/replication/types.js";
import type { OpenMessage, ReplicationMessage, RequestMessage, ResponseMessage } from "../../../src/wire/messages.js";
import { Operation, ResourceId, ResourceUrl } from "../../../src/wire/messages.js";

export const PEER_ID = "caf067a6-f112-4907-9101-d45857d2b149";
export const SECRET = "522c0daf-2ef2-4dab-bc78-5e04e3daf552";
export const MIB = 1024 * 1024;

export const ES: string = ResourceUrl.exportedService;
export const EL: string = ResourceUrl.exportedServiceList;
export const TB: string = ResourceUrl.trustBundle;
export const SA: string = ResourceUrl.serverAddresses;

type Role = "acceptor" | "dialer";
type Common = Omit<Partial<Extract<SessionOptions, { role: "acceptor" }>>, "role">;

export function optionsOf(role: Role, common: Common = {}): SessionOptions {
  const base = { maxSendBytes: 8 * MIB, ...common };
  if (role === "acceptor") return { ...base, role };
  return {
    ...base,
    role,
    remoteId: PEER_ID,
    streamSecretId: SECRET,
    remote: { partition: "", datacenter: "dc2" },
  };
}

/** A session with a clock of its own, and a transport that takes everything at once while `reading`. */
export class Driver {
  readonly session: ReplicationSession;
  readonly role: Role;
  now = 1_000;
  reading = true;

  constructor(role: Role, common: Common = {}) {
    this.role = role;
    this.session = new ReplicationSession(optionsOf(role, common));
  }

  get status(): SessionStatus {
    return this.session.status;
  }

  feed(...inputs: readonly SessionInput[]): SessionOutput[] {
    const outputs: SessionOutput[] = [];
    for (const input of inputs) outputs.push(...this.session.handle(input, this.now));
    while (this.reading && this.session.wantsToSend) {
      outputs.push(...this.session.handle({ type: "writable", bytes: 1_000_000 }, this.now));
    }
    return outputs;
  }

  receive(...messages: readonly ReplicationMessage[]): SessionOutput[] {
    return this.feed({ type: "received", messages });
  }

  /** Lets time pass, with a tick at every deadline, as the host's timer does. */
  pass(ms: number): SessionOutput[] {
    const end = this.now + ms;
    const outputs: SessionOutput[] = [];
    for (;;) {
      const due = this.session.deadlineMs;
      if (due === undefined || due > end) break;
      this.now = Math.max(this.now, due);
      outputs.push(...this.feed({ type: "tick" }));
    }
    this.now = end;
    return outputs;
  }
}

/** A session past its opening, with the outputs of that taken away: the peer subscribed to `urls`. */
export function connected(role: Role, common: Common = {}, urls: readonly string[] = [ES, EL, TB, SA]): Driver {
  const driver = new Driver(role, common);
  driver.feed({ type: "start" });
  if (role === "acceptor") {
    driver.receive(open());
    driver.feed({ type: "authorized" });
  }
  // A stock acceptor has no use for addresses and never asks.
  for (const url of urls) if (role === "acceptor" || url !== SA) driver.receive(subscription(url));
  return driver;
}

export function open(changes: Partial<OpenMessage> = {}): OpenMessage {
  const remote = { partition: "", datacenter: "dc2" };
  return { type: "open", peerId: PEER_ID, streamSecretId: SECRET, remote, ...changes };
}

export function subscription(resourceUrl: string, changes: Partial<RequestMessage> = {}): RequestMessage {
  return { type: "request", peerId: "", responseNonce: "", resourceUrl, ...changes };
}

export function ack(resourceUrl: string, responseNonce: string): RequestMessage {
  return { type: "request", peerId: "", responseNonce, resourceUrl };
}

export function nack(resourceUrl: string, responseNonce: string, message: string): RequestMessage {
  return { type: "request", peerId: "", responseNonce, resourceUrl, error: { code: 13, message } };
}

export function response(resourceId: string, changes: Partial<ResponseMessage> = {}): ResponseMessage {
  const resourceUrl = changes.resourceUrl ?? ES;
  return {
    type: "response",
    nonce: "0000000a",
    resourceUrl,
    resourceId,
    operation: Operation.Upsert,
    resource: { typeUrl: resourceUrl, value: bytes(resourceId) },
    ...changes,
  };
}

export function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export function service(resourceId: string, content = "1"): ExportedResource {
  return { resourceUrl: ES, resourceId, value: bytes(content), digest: content };
}

export function list(...names: readonly string[]): ExportedResource {
  const content = names.join();
  return {
    resourceUrl: EL,
    resourceId: ResourceId.exportedServiceList,
    value: bytes(content),
    digest: content,
    names,
  };
}

export function roots(content = "roots"): ExportedResource {
  return { resourceUrl: TB, resourceId: ResourceId.trustBundle, value: bytes(content), digest: content };
}

export function addresses(content = "addresses"): ExportedResource {
  return { resourceUrl: SA, resourceId: ResourceId.serverAddresses, value: bytes(content), digest: content };
}

export function exported(...resources: readonly ExportedResource[]): SessionInput {
  return { type: "exported", resources };
}

export function sent(outputs: readonly SessionOutput[]): ReplicationMessage[] {
  return outputs.flatMap((output) => (output.type === "send" ? [output.message] : []));
}

/** The sent messages, one word each: enough to compare orders. */
export function words(outputs: readonly SessionOutput[]): string[] {
  return sent(outputs).map((message) => {
    if (message.type === "request") {
      const kind = message.responseNonce === "" ? "subscribe" : message.error === undefined ? "ack" : "nack";
      return `${kind} ${message.resourceUrl.split(".").at(-1)}`;
    }
    return message.type === "response" ? `${message.resourceId}=${text(message)}` : message.type;
  });
}

export function text(message: ResponseMessage): string {
  return new TextDecoder().decode(message.resource?.value);
}

export function closeOf(outputs: readonly SessionOutput[]): Extract<SessionOutput, { type: "close" }> | undefined {
  return outputs.find((output) => output.type === "close");
}

export function appliesOf(outputs: readonly SessionOutput[]): Extract<SessionOutput, { type: "apply" }>[] {
  return outputs.filter((output) => output.type === "apply");
}
