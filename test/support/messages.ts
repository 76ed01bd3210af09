import type { ServiceInstance } from "../../src/model/instance.js";
import { encodeServicePayload } from "../../src/payload/exported-payload.js";
import { TokenCodec } from "../../src/token/token-codec.js";
import {
  type OpenMessage,
  Operation,
  type RequestMessage,
  ResourceId,
  ResourceUrl,
  type ResponseMessage,
} from "../../src/wire/messages.js";
import { encodeExportedServiceList } from "../../src/wire/resources.js";
import { instance } from "../unit/config/export-fixtures.js";
import type { RawStream, Site, World } from "./world.js";

export const REMOTE = { partition: "", datacenter: "raw" };

/** One payload with `instances` instances of a service, all on nodes of their own. */
export function servicePayload(name: string, instances = 1): Uint8Array {
  const all: ServiceInstance[] = [];
  for (let index = 1; index <= instances; index++) {
    all.push(instance(name, { id: `${name}-${index}` }, `${name}-node-${index}`));
  }
  return encodeServicePayload(name, all).value;
}

/** An UPSERT of one service; `nonce` is written as Consul writes it. */
export function upsert(nonce: number, name: string, value: Uint8Array): ResponseMessage {
  return response(nonce, ResourceUrl.exportedService, name, value);
}

export function list(nonce: number, ...names: readonly string[]): ResponseMessage {
  const value = encodeExportedServiceList(names);
  return response(nonce, ResourceUrl.exportedServiceList, ResourceId.exportedServiceList, value);
}

export function response(nonce: number, resourceUrl: string, resourceId: string, value: Uint8Array): ResponseMessage {
  return {
    type: "response",
    nonce: nonce.toString(16).padStart(8, "0"),
    resourceUrl,
    resourceId,
    operation: Operation.Upsert,
    resource: { typeUrl: resourceUrl, value },
  };
}

export function subscribe(resourceUrl: string, peerId = ""): RequestMessage {
  return { type: "request", peerId, responseNonce: "", resourceUrl };
}

/** A secret exchanged with `acceptor` for a dialer that it will know as `name`, by a program that is no host. */
export async function exchanged(
  world: World,
  acceptor: Site,
  name: string,
): Promise<Pick<OpenMessage, "peerId" | "streamSecretId">> {
  return exchange(world, acceptor, await world.result(acceptor.host.peerings.generateToken({ peerName: name })));
}

/** Trades this token in at `acceptor`. */
export async function exchange(
  world: World,
  acceptor: Site,
  text: string,
): Promise<Pick<OpenMessage, "peerId" | "streamSecretId">> {
  const token = TokenCodec.decode(text);
  const { peerId, establishmentSecret } = token;
  const transport = world.network.transport("raw:1", { alive: true });
  const target = { address: acceptor.address, serverName: token.serverName, caPems: token.ca };
  const answer = await world.result(
    transport.exchangeSecret(
      target,
      { peerId, establishmentSecret },
      { timeoutMs: 5_000, signal: new AbortController().signal },
    ),
  );
  return { peerId, streamSecretId: answer.streamSecret };
}

export interface OpenedStream {
  readonly stream: RawStream;
  readonly open: OpenMessage;
}

/** A stream to `acceptor` that it has taken, from a program that is no host. */
export async function openAs(world: World, acceptor: Site, name: string): Promise<OpenedStream> {
  const open: OpenMessage = { type: "open", ...(await exchanged(world, acceptor, name)), remote: REMOTE };
  const stream = await world.raw(acceptor);
  await stream.say(open);
  await world.until(() => stream.received.length >= 3, "the acceptor subscribes");
  return { stream, open };
}
