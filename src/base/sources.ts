import { isIPv6 } from "node:net";
import type { Clock } from "./environment.js";
import { hostOf } from "./host-port.js";

/** The source of an address `host:port`: the IPv4 address, or the /64 of an IPv6 one, since one owner has all of that. */
export function sourceOf(remoteAddress: string): string {
  const host = hostOf(remoteAddress);
  if (!isIPv6(host)) return host;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(host);
  if (mapped?.[1] !== undefined) return mapped[1];
  const [before = "", after] = host.replace(/%.*$/, "").split("::");
  const groups = (text: string): string[] => (text === "" ? [] : text.split(":"));
  const left = groups(before);
  const right = after === undefined ? [] : groups(after);
  const zeros = Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => "0");
  return [...left, ...zeros, ...right]
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":");
}

/** The network of a source, which one holder of addresses often has all of: an IPv4 /24, an IPv6 /56. */
export function networkOf(source: string): string {
  const [first, second, third, fourth] = source.split(":");
  if (fourth === undefined) return source.replace(/\.\d+$/, ".0/24");
  const high = Number.parseInt(fourth, 16) & 0xff00;
  return `${first}:${second}:${third}:${high.toString(16)}::/56`;
}

export interface PlaceLimits {
  /** Places of all sources together. */
  readonly inAll: number;
  /** Places of one source. */
  readonly perSource: number;
  /** How long a place is safe after it was taken or has ceased to work, in milliseconds. */
  readonly graceMs: number;
  /** Whether no place is taken away before the grace is over, because newcomers can wait. Default false. */
  readonly onlyStale?: boolean;
}

/** A place that a source holds. It waits until it is told to work. */
export interface Place {
  /** It does something for its holder: it is not displaced for waiting too long. */
  work(): void;
  /** It waits for its holder again. */
  wait(): void;
  /** It is free again. May be called more than once, and after it was displaced. */
  leave(): void;
}

/** Why there was no place: the source has as many as it may, or all are taken. */
export type NoPlace = "source" | "all";

interface Holder extends Place {
  readonly source: string;
  readonly displaced: () => void;
  /** Undefined while it works. */
  waitsSinceMs: number | undefined;
}

/**
 * Places for requests of strangers, such as connections. When all are taken, a newcomer gets one nevertheless: first that
 * of the stranger that has waited longest, if that is longer than the grace, then the oldest of the source that holds most, if that is more
 * than the newcomer's source holds. So callers that hold places keep no newcomer out, however many there are.
 */
export class Places {
  readonly #limits: PlaceLimits;
  readonly #clock: Clock;
  /** By source, the oldest first. */
  readonly #holders = new Map<string, Set<Holder>>();
  /** In the order in which they began to wait. */
  readonly #waiting = new Set<Holder>();
  #taken = 0;

  constructor(limits: PlaceLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  /** Whether there is a place for `source`, which may be that of another. Undefined: there is one, else why there is none. */
  makeRoom(source: string): NoPlace | undefined {
    const own = this.#holders.get(source) ?? new Set();
    if (own.size >= this.#limits.perSource && !this.#displaceStale(firstWaiting(own))) return "source";
    const { inAll, onlyStale = false } = this.#limits;
    if (this.#taken >= inAll && !this.displaceStale() && (onlyStale || !this.displaceFor(source))) return "all";
    return undefined;
  }

  /** @param displaced - is called when the place goes to another: what held it must end at once. */
  take(source: string, displaced: () => void): Place | NoPlace {
    const none = this.makeRoom(source);
    if (none !== undefined) return none;
    const holder: Holder = {
      source,
      displaced,
      waitsSinceMs: undefined,
      work: () => {
        this.#waiting.delete(holder);
        holder.waitsSinceMs = undefined;
      },
      wait: () => {
        if (!this.#holders.get(source)?.has(holder)) return;
        holder.work();
        holder.waitsSinceMs = this.#clock.now();
        this.#waiting.add(holder);
      },
      leave: () => this.#leave(holder),
    };
    const holders = this.#holders.get(source) ?? new Set();
    this.#holders.set(source, holders.add(holder));
    this.#taken++;
    holder.wait();
    return holder;
  }

  /** Takes away the place that was taken first. False: none is older than the grace. */
  displaceStale(): boolean {
    const [longest] = this.#waiting;
    return this.#displaceStale(longest);
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Takes away the place that was taken first. False: there is none. */
  displaceWaiting(): boolean {
    const [longest] = this.#waiting;
    return longest !== undefined && this.#displace(longest);
  }

  /**
   * Takes away a place of the source that holds most: that which waits longest, or, where none waits, the oldest. False: that
   * source holds no more than `source` itself.
   * @param source - of the newcomer. Undefined: whatever is held, it is more.
   */
  displaceFor(source: string | undefined): boolean {
    const own = source === undefined ? 0 : (this.#holders.get(source)?.size ?? 0);
    let most = own;
    let oldest: Holder | undefined;
    for (const holders of this.#holders.values()) {
      if (holders.size <= most) continue;
      most = holders.size;
      [oldest] = holders;
    }
    if (oldest === undefined) return false;
    for (const holder of this.#waiting) {
      if (this.#holders.get(holder.source)?.size === most) return this.#displace(holder);
    }
    return this.#displace(oldest);
  }

  #displaceStale(holder: Holder | undefined): boolean {
    if (holder?.waitsSinceMs === undefined) return false;
    return this.#clock.now() - holder.waitsSinceMs >= this.#limits.graceMs && this.#displace(holder);
  }

  #displace(holder: Holder): true {
    holder.leave();
    holder.displaced();
    return true;
  }

  #leave(holder: Holder): void {
    const holders = this.#holders.get(holder.source);
    if (!holders?.delete(holder)) return;
    if (holders.size === 0) this.#holders.delete(holder.source);
    this.#waiting.delete(holder);
    this.#taken--;
  }
}

function firstWaiting(holders: Iterable<Holder>): Holder | undefined {
  for (const holder of holders) if (holder.waitsSinceMs !== undefined) return holder;
  return undefined;
}
