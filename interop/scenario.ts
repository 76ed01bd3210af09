import type { Band } from "./consul.js";
import type { Stage } from "./stage.js";

/** Ours: whether we generate the token and are dialed, or use it and dial. */
export type Role = "acceptor" | "dialer";

export const ROLES: readonly Role[] = ["dialer", "acceptor"];

/** Something that must be true of ours and a real Consul together, whatever ran before. */
export interface Scenario {
  /** As it stands in the table. */
  readonly name: string;
  /** The cases of test/CASES.md that it proves. */
  readonly proves?: string;
  /** Default: both. */
  readonly roles?: readonly Role[];
  /** Default: `modern` alone. */
  readonly bands?: readonly Band[];
  /** Measures something, or needs the whole machine: nothing else runs meanwhile. */
  readonly alone?: boolean;
  /** Takes minutes by its nature: left out unless asked for. */
  readonly long?: boolean;
  /** Resolves when it is true, and throws when it is not. */
  readonly run: (stage: Stage) => Promise<void>;
}
