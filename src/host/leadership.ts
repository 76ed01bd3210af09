/**
 * Which node of a cluster runs its streams. A host alone always leads; several hosts on one storage elect one.
 * Only the leader dials, accepts, applies and cleans up; any node answers reads.
 */
export interface Leadership {
  readonly isLeader: boolean;
  /** The leader's address as sent to misguided dialers: a hint, may be `""`. */
  readonly leaderAddress: string;
  /** Calls `listener` after each change, until the returned function is called. */
  onChange(listener: () => void): () => void;
}

/** The leadership of a host that is alone. */
export const alwaysLeader: Leadership = {
  isLeader: true,
  leaderAddress: "",
  onChange: () => () => {},
};
