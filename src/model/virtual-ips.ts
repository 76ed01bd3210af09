import type { VirtualIpRecord } from "./catalog-record.js";
import { invalid } from "./registration.js";

/** The last offset Consul hands out: 255.255.255.253. */
const LAST_OFFSET = 0x0fff_fffd;

/** The address at `offset` of 240.0.0.0/4. */
export function virtualIpAddress(offset: number): string {
  return `${240 + (offset >>> 24)}.${(offset >>> 16) & 255}.${(offset >>> 8) & 255}.${offset & 255}`;
}

/** The key of a virtual IP. Neither peer nor service names hold a NUL. */
export function virtualIpKey(peer: string, service: string): string {
  return `${peer}\0${service}`;
}

/**
 * Which service has which virtual IP: always the lowest one free, so that freed addresses are used
 * first and the assignments alone are the whole state.
 */
export class VirtualIps {
  readonly #records = new Map<string, VirtualIpRecord>();
  readonly #taken = new OffsetSet();
  /** Keys of the services with an address that an operator gave, by that address. */
  readonly #manual = new Map<string, string>();
  /** Services whose address is claimed, by peer. */
  readonly #claimed = new Map<string, Set<string>>();

  get(key: string): VirtualIpRecord | undefined {
    return this.#records.get(key);
  }

  isTaken(offset: number): boolean {
    return this.#taken.has(offset);
  }

  set(key: string, record: VirtualIpRecord | undefined): void {
    const before = this.#records.get(key);
    if (before !== undefined) {
      this.#taken.delete(before.offset);
      this.#records.delete(key);
      // Whom it was given to meanwhile has it.
      for (const address of before.manual ?? []) if (this.#manual.get(address) === key) this.#manual.delete(address);
      if (before.claimed) this.#unclaim(before);
    }
    if (record === undefined) return;
    this.#records.set(key, record);
    this.#taken.add(record.offset);
    for (const address of record.manual ?? []) this.#manual.set(address, key);
    if (record.claimed) {
      this.#claimed.set(record.peer, (this.#claimed.get(record.peer) ?? new Set()).add(record.service));
    }
  }

  #unclaim({ peer, service }: VirtualIpRecord): void {
    const services = this.#claimed.get(peer);
    services?.delete(service);
    if (services?.size === 0) this.#claimed.delete(peer);
  }

  /** The key of the service that an operator gave this address. */
  manualHolder(address: string): string | undefined {
    return this.#manual.get(address);
  }

  /** Peers with services whose address is claimed; `""`: ourselves. */
  claimingPeers(): readonly string[] {
    return [...this.#claimed.keys()];
  }

  /** Services of a peer whose address is claimed. */
  claimedOf(peer: string): ReadonlySet<string> {
    return new Set(this.#claimed.get(peer));
  }

  /** The lowest offset from `first` on that is free. */
  firstFree(first: number): number {
    return this.#taken.firstAbsent(first);
  }
}

const WORD_BITS = 32;

/** Whole numbers, most of them from the lowest on without a gap, among which the lowest that is missing is found at once. */
class OffsetSet {
  /** One bit a number, by 32. */
  readonly #words: number[] = [];
  /** One bit a word: it is full. */
  readonly #full: number[] = [];

  has(offset: number): boolean {
    return ((this.#words[Math.floor(offset / WORD_BITS)] ?? 0) & (1 << (offset % WORD_BITS))) !== 0;
  }

  add(offset: number): void {
    const word = Math.floor(offset / WORD_BITS);
    this.#words[word] = (this.#words[word] ?? 0) | (1 << (offset % WORD_BITS));
    if (this.#words[word] !== -1) return;
    const group = Math.floor(word / WORD_BITS);
    this.#full[group] = (this.#full[group] ?? 0) | (1 << (word % WORD_BITS));
  }

  delete(offset: number): void {
    const word = Math.floor(offset / WORD_BITS);
    this.#words[word] = (this.#words[word] ?? 0) & ~(1 << (offset % WORD_BITS));
    const group = Math.floor(word / WORD_BITS);
    this.#full[group] = (this.#full[group] ?? 0) & ~(1 << (word % WORD_BITS));
  }

  /** The lowest from `first` on that is not in it. */
  firstAbsent(first: number): number {
    let offset = first;
    for (;;) {
      const word = Math.floor(offset / WORD_BITS);
      const group = Math.floor(word / WORD_BITS);
      if (this.#full[group] === -1) offset = (group + 1) * WORD_BITS * WORD_BITS;
      else if (this.#words[word] === -1) offset = (word + 1) * WORD_BITS;
      else if (this.has(offset)) offset++;
      else return offset;
    }
  }
}

const MANUAL_ADDRESSES = 8;

/** @throws {PeeringError} `invalid-registration` with Consul's text when they cannot be addresses of one service. */
export function checkManualAddresses(addresses: readonly string[]): void {
  if (addresses.length > MANUAL_ADDRESSES) {
    throw invalid(`cannot associate more than ${MANUAL_ADDRESSES} manual virtual IPs with the same service`);
  }
  for (const address of addresses) {
    if (!/^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/.test(address)) {
      throw invalid(`${JSON.stringify(address)} is not a valid IPv4 address`);
    }
  }
}

/** Changes to {@link VirtualIps} that are not committed yet. */
export class VirtualIpDraft {
  readonly #base: VirtualIps;
  readonly changes: Map<string, VirtualIpRecord | undefined> = new Map();
  /** Services with addresses that operators gave, where that differs from the base. */
  readonly #manual = new Map<string, string | undefined>();
  /** Offsets whose use differs from the base. */
  readonly #uses = new Map<number, boolean>();
  /** Those of them that were freed, with some that have been taken since. */
  readonly #freed = new LowestFirst();
  /** Below it, what the base has free is taken here. */
  #floor = 1;

  constructor(base: VirtualIps) {
    this.#base = base;
  }

  get(key: string): VirtualIpRecord | undefined {
    return this.changes.has(key) ? this.changes.get(key) : this.#base.get(key);
  }

  /** As {@link VirtualIps.manualHolder}, after the commit. */
  manualHolder(address: string): string | undefined {
    return this.#manual.has(address) ? this.#manual.get(address) : this.#base.manualHolder(address);
  }

  /** Also undoes: setting the former value restores it. */
  set(key: string, record: VirtualIpRecord | undefined): void {
    const before = this.get(key);
    if (before !== undefined) {
      this.#uses.set(before.offset, false);
      this.#freed.add(before.offset);
    }
    for (const address of before?.manual ?? []) {
      if (this.manualHolder(address) === key) this.#manual.set(address, undefined);
    }
    if (record !== undefined) this.#uses.set(record.offset, true);
    for (const address of record?.manual ?? []) this.#manual.set(address, key);
    this.changes.set(key, record);
  }

  /** @throws {PeeringError} `invalid-registration` with Consul's text when none is left. */
  lowestFree(): number {
    let freed = this.#freed.lowest;
    while (freed !== undefined && this.#isTaken(freed)) {
      this.#freed.removeLowest();
      freed = this.#freed.lowest;
    }
    this.#floor = this.#base.firstFree(this.#floor);
    while (this.#isTaken(this.#floor)) this.#floor = this.#base.firstFree(this.#floor + 1);
    const lowest = Math.min(freed ?? Number.POSITIVE_INFINITY, this.#floor);
    if (lowest > LAST_OFFSET) throw invalid("cannot allocate any more unique service virtual IPs");
    return lowest;
  }

  #isTaken(offset: number): boolean {
    return this.#uses.get(offset) ?? this.#base.isTaken(offset);
  }
}

/** Numbers, of which the lowest is at hand: a binary heap. */
class LowestFirst {
  readonly #numbers: number[] = [];

  get lowest(): number | undefined {
    return this.#numbers[0];
  }

  add(number: number): void {
    const numbers = this.#numbers;
    let place = numbers.push(number) - 1;
    while (place > 0) {
      const parent = (place - 1) >>> 1;
      const above = numbers[parent] ?? 0;
      if (above <= number) break;
      numbers[place] = above;
      place = parent;
    }
    numbers[place] = number;
  }

  removeLowest(): void {
    const numbers = this.#numbers;
    const last = numbers.pop();
    if (last === undefined || numbers.length === 0) return;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      const [left, right] = [numbers[child], numbers[child + 1]];
      if (left === undefined) break;
      if (right !== undefined && right < left) child++;
      const lower = numbers[child] ?? left;
      if (lower >= last) break;
      numbers[place] = lower;
      place = child;
    }
    numbers[place] = last;
  }
}
