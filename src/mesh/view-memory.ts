import type { Steps } from "../base/steps.js";
import type { CompiledChain } from "../config/chain.js";
import { InUse } from "./in-use.js";
import type { Endpoints } from "./snapshot/endpoints.js";

/** A value that was made at one state of a host, for all that ask at the same one. */
export interface Made<Value> {
  at: unknown;
  value: Value | undefined;
}

/** @param make - is told the value of a former state, which it may return where nothing has changed. */
export function madeAt<Value>(made: Made<Value>, at: unknown, make: (former: Value | undefined) => Value): Value {
  if (made.value === undefined || made.at !== at) made.value = make(made.value);
  made.at = at;
  return made.value;
}

/** As {@link madeAt}, in steps. */
export function* madeInSteps<Value>(made: Made<Value>, at: unknown, make: () => Steps<Value>): Steps<Value> {
  if (made.value !== undefined && made.at === at) return made.value;
  const value = yield* make();
  made.value = value;
  made.at = at;
  return value;
}

const notMade = <Value>(): Made<Value> => ({ at: undefined, value: undefined });

/** The common parts of the views of one host, made once at each state for all of them, and kept for as long as one of them uses it. */
export class ViewMemory {
  readonly #chains = new InUse<Made<CompiledChain>>();
  readonly #endpoints = new InUse<Made<Endpoints>>();
  readonly #importedNames = new InUse<Made<readonly string[]>>();
  readonly #meshServices: Made<readonly string[]> = notMade();
  readonly #gateways: Made<Endpoints> = notMade();

  /** For one view. */
  user(): ViewMemoryUser {
    const [chains, endpoints, importedNames] = [new Set<string>(), new Set<string>(), new Set<string>()];
    return {
      chain: (key) => this.#chains.use(key, chains, notMade<CompiledChain>),
      endpoints: (key) => this.#endpoints.use(key, endpoints, notMade<Endpoints>),
      importedNames: (peer) => this.#importedNames.use(peer, importedNames, notMade<readonly string[]>),
      meshServices: this.#meshServices,
      gateways: this.#gateways,
      release: () => {
        this.#chains.release(chains);
        this.#endpoints.release(endpoints);
        this.#importedNames.release(importedNames);
      },
    };
  }
}

export interface ViewMemoryUser {
  chain(key: string): Made<CompiledChain>;
  endpoints(key: string): Made<Endpoints>;
  importedNames(peer: string): Made<readonly string[]>;
  readonly meshServices: Made<readonly string[]>;
  readonly gateways: Made<Endpoints>;
  /** Gives up what the view has used. */
  release(): void;
}
