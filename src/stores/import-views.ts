import { RecentlyUsed } from "../base/recently-used.js";
import type { PayloadView } from "../payload/payload-parts.js";
import type { StoredService } from "./import-index.js";

/** No node is described by another service. */
export const noNodes: PayloadView["nodes"] = new Map();

/** The views that were used last, up to a size. */
export class KeptViews {
  readonly #views: RecentlyUsed<StoredService, PayloadView>;

  /** @param most - bytes of payloads. */
  constructor(most: number) {
    this.#views = new RecentlyUsed(most, ({ value }) => value.length);
  }

  get(service: StoredService): PayloadView | undefined {
    return this.#views.get(service);
  }

  keep(service: StoredService, view: PayloadView): PayloadView {
    this.#views.set(service, view);
    return view;
  }

  /** A payload that was just written describes its nodes itself. Copied, so that it keeps no message that it came in. */
  keepWritten(service: StoredService, payload: Uint8Array): void {
    this.keep(service, { value: new Uint8Array(payload), nodes: noNodes, apart: service.apart });
  }

  /** A service, or one of its nodes, is not as it was. */
  drop(service: StoredService): void {
    this.#views.delete(service);
  }
}
