import type { Steps } from "../base/steps.js";
import type { ServiceInstance } from "../model/instance.js";
import { lowerCase } from "../syntax/names.js";
import { lengthTag, ProtobufReader } from "../wire/protobuf.js";
import { Field } from "./field-numbers.js";
import {
  type DecodedNode,
  decodeNode,
  decodePayload,
  decodeSteps,
  diffInstances,
  type EncodedNode,
  type InstanceDiff,
  type NodeOf,
} from "./imported-payload.js";

/** A service at one moment: its payload, and the nodes of which another payload of the peer says something newer. */
export interface PayloadView {
  /** A payload that `inspectPayload` has accepted. */
  readonly value: Uint8Array;
  /** By lower-cased name; of other nodes the payload's own copy counts. */
  readonly nodes: ReadonlyMap<string, EncodedNode>;
  /** Whether each instance is on a node of its own, so that it can be decoded without the others. */
  readonly apart: boolean;
}

/** Things that are made one after another; in between, `undefined` ends a step in which none was made. */
export type Parts<Item> = Generator<Item | undefined, void, undefined>;

const INSTANCES = lengthTag(Field.ExportedService.Nodes);
const INSTANCE_NODE = lengthTag(Field.CheckServiceNode.Node);
const NODE_NAME = lengthTag(Field.Node.Node);

/** Instances looked at in one step. */
const LOOKED_AT_BATCH = 5_000;
/** Instances decoded in one step. */
const DECODED_BATCH = 500;

/** Decodes the nodes of a view when they are asked for, once each. */
export function nodesOf({ nodes }: PayloadView): NodeOf {
  const decoded = new Map<string, DecodedNode>();
  return (name) => {
    const encoded = nodes.get(name);
    if (encoded === undefined) return undefined;
    const known = decoded.get(name) ?? decodeNode(encoded);
    decoded.set(name, known);
    return known;
  };
}

/** The instances of a view, `size` of them or fewer at a time, in any order. */
export function* instanceParts(view: PayloadView, size: number): Parts<readonly ServiceInstance[]> {
  const { value, apart } = view;
  const nodeOf = nodesOf(view);
  if (!apart) {
    const all = yield* decodeSteps(value, nodeOf);
    for (let start = 0; start < all.length; start += size) yield all.slice(start, start + size);
    return;
  }
  const most = Math.min(size, DECODED_BATCH);
  const reader = new ProtobufReader(value);
  let [start, fields] = [0, 0];
  while (!reader.done) {
    reader.skip(reader.tag());
    // Whole fields are a payload by themselves.
    if (++fields < most && !reader.done) continue;
    const part = decodePayload(value.subarray(start, reader.position), nodeOf);
    [start, fields] = [reader.position, 0];
    yield part.length === 0 ? undefined : part;
  }
}

/**
 * The changes of the instances of a service, `size` of them or fewer at a time where that is possible: all of one node come
 * together. Only what differs is decoded.
 * @param before - undefined: there were none.
 * @param after - undefined: there are none.
 */
export function* differenceParts(
  before: PayloadView | undefined,
  after: PayloadView | undefined,
  size: number,
): Parts<InstanceDiff> {
  if (before === after) return;
  if (before === undefined || after === undefined) {
    const view = before ?? after;
    if (view === undefined) return;
    for (const part of instanceParts(view, size)) {
      if (part === undefined) yield undefined;
      else yield { added: after === undefined ? [] : part, changed: [], removed: after === undefined ? part : [] };
    }
    return;
  }
  const former = yield* byNode(before.value);
  const current = yield* byNode(after.value);
  const [nodesBefore, nodesAfter] = [nodesOf(before), nodesOf(after)];
  const found = new Difference(size);
  for (const [name, group] of current) {
    const old = former.get(name);
    former.delete(name);
    const same =
      old !== undefined &&
      sameGroup(before.value, old, after.value, group) &&
      sameNode(before.nodes.get(name), after.nodes.get(name));
    if (!same) {
      const was = old === undefined ? [] : decodeGroup(before.value, old, nodesBefore);
      found.add(diffInstances(was, decodeGroup(after.value, group, nodesAfter)));
    }
    if (found.isStepOver()) yield found.take();
  }
  for (const group of former.values()) {
    found.add({ added: [], changed: [], removed: decodeGroup(before.value, group, nodesBefore) });
    if (found.isStepOver()) yield found.take();
  }
  const last = found.take();
  if (last !== undefined) yield last;
}

/** Gathers differences until they are worth a part. */
class Difference {
  readonly #size: number;
  #groups = 0;
  #count = 0;
  #added: ServiceInstance[] = [];
  #changed: ServiceInstance[] = [];
  #removed: ServiceInstance[] = [];

  constructor(size: number) {
    this.#size = size;
  }

  add({ added, changed, removed }: InstanceDiff): void {
    for (const one of added) this.#added.push(one);
    for (const one of changed) this.#changed.push(one);
    for (const one of removed) this.#removed.push(one);
    // Decoding is nearly all of the work.
    this.#groups += LOOKED_AT_BATCH / DECODED_BATCH;
    this.#count += added.length + changed.length + removed.length;
  }

  isStepOver(): boolean {
    return ++this.#groups >= LOOKED_AT_BATCH || this.#count >= this.#size;
  }

  /** The gathered changes, where they are enough for a part, or where no more follow. */
  take(): InstanceDiff | undefined {
    this.#groups = 0;
    if (this.#count === 0) return undefined;
    const part = { added: this.#added, changed: this.#changed, removed: this.#removed };
    [this.#count, this.#added, this.#changed, this.#removed] = [0, [], [], []];
    return part;
  }
}

/** The fields of one node, in order. */
interface Group {
  readonly start: number;
  readonly end: number;
  next: Group | undefined;
}

/** The instances of a payload by the lower-cased names of their nodes. */
function* byNode(value: Uint8Array): Steps<Map<string, Group>> {
  const groups = new Map<string, Group>();
  const last = new Map<string, Group>();
  const reader = new ProtobufReader(value);
  for (let fields = 1; !reader.done; fields++) {
    if (fields % LOOKED_AT_BATCH === 0) yield;
    const start = reader.position;
    const tag = reader.tag();
    if (tag !== INSTANCES) {
      reader.skip(tag);
      continue;
    }
    const name = nodeNameOf(reader.message());
    const group = { start, end: reader.position, next: undefined };
    const before = last.get(name) ?? groups.get(name);
    if (before === undefined) groups.set(name, group);
    else {
      before.next = group;
      last.set(name, group);
    }
  }
  return groups;
}

function nodeNameOf(instance: ProtobufReader): string {
  let name = "";
  while (!instance.done) {
    const tag = instance.tag();
    if (tag !== INSTANCE_NODE) {
      instance.skip(tag);
      continue;
    }
    const node = instance.message();
    while (!node.done) {
      const inner = node.tag();
      if (inner === NODE_NAME) name = node.string();
      else node.skip(inner);
    }
  }
  return lowerCase(name);
}

function decodeGroup(value: Uint8Array, group: Group, nodeOf: NodeOf): readonly ServiceInstance[] {
  if (group.next === undefined) return decodePayload(value.subarray(group.start, group.end), nodeOf);
  const fields: Uint8Array[] = [];
  for (let one: Group | undefined = group; one !== undefined; one = one.next) {
    fields.push(value.subarray(one.start, one.end));
  }
  return decodePayload(Buffer.concat(fields), nodeOf);
}

function sameGroup(left: Uint8Array, ofLeft: Group, right: Uint8Array, ofRight: Group): boolean {
  let [a, b]: [Group | undefined, Group | undefined] = [ofLeft, ofRight];
  for (; a !== undefined && b !== undefined; a = a.next, b = b.next) {
    if (Buffer.compare(left.subarray(a.start, a.end), right.subarray(b.start, b.end)) !== 0) return false;
  }
  return a === b;
}

function sameNode(left: EncodedNode | undefined, right: EncodedNode | undefined): boolean {
  if (left === right) return true;
  if (left === undefined || right === undefined || left.checks.length !== right.checks.length) return false;
  const none = new Uint8Array();
  return (
    Buffer.compare(left.record, right.record) === 0 &&
    left.checks.every((check, index) => Buffer.compare(check, right.checks[index] ?? none) === 0)
  );
}
