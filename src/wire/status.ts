/** gRPC status codes used between peers. */
export const StatusCode = {
  Ok: 0,
  Canceled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
} as const;

/** The end of a gRPC call. `code` may be any number a peer sends. */
export interface Status {
  readonly code: number;
  readonly message: string;
  /** From the `LeaderAddress` detail: the leader's server RPC address, a hint that is never dialed. */
  readonly leaderAddress?: string;
}
