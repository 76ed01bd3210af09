import type { PayloadView } from "../payload/payload-parts.js";
import type { StoredService } from "./import-index.js";

/** No node is described by another service. */
export const noNodes: PayloadView["nodes"] = new Map();

/** The views that were used last, up to a size. */
export class KeptViews {
  readonly #views = new Map<StoredService, PayloadView>();
  readonly #most: number;
  #bytes = 0;

  /** @param most - bytes of payloads. */
  constructor(most: number) {
    this.#most = most;
  }

  get(service: StoredService): PayloadView | undefined {
    const view = this.#views.get(service);
    if (view === undefined) return undefined;
    this.#views.delete(service);
    this.#views.set(service, view);
    return view;
  }

  keep(service: StoredService, view: PayloadView): PayloadView {
    this.drop(service);
    this.#views.set(service, view);
    this.#bytes += view.value.length;
    for (const oldest of this.#views.keys()) {
      if (this.#bytes <= this.#most) break;
      this.drop(oldest);
    }
    return view;
  }

  /** A payload that was just written describes its nodes itself. Copied, so that it keeps no message that it came in. */
  keepWritten(service: StoredService, payload: Uint8Array): void {
    this.keep(service, { value: new Uint8Array(payload), nodes: noNodes, apart: service.apart });
  }

  /** A service, or one of its nodes, is not as it was. */
  drop(service: StoredService): void {
    const view = this.#views.get(service);
    if (view === undefined) return;
    this.#bytes -= view.value.length;
    this.#views.delete(service);
  }
}
