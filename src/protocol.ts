/**
 * The machinery behind a host, for programs that use parts of it by themselves: the table of the state machine, what a stream
 * says and when, the contents of tokens, and the stores a host composes. Programs that run a host need `peerage` alone.
 *
 * @module
 */

export { AgentChecks, type AgentChecksOptions, type CheckLimits } from "./host/agent-checks.js";
export { type StreamFacts, type StreamStatus, ZERO_TIME } from "./peering/observed.js";
export {
  type Cell,
  type Outcome,
  PEERING_STATES,
  type Reached,
  type RoleCells,
  TRANSITIONS,
  type TransitionTable,
  transition,
  type Unchanged,
} from "./peering/state-machine.js";
export * from "./pieces.js";
export { defaultSessionLimits, defaultSessionTimings } from "./replication/session.js";
export { Catalog, type CatalogOptions } from "./stores/catalog.js";
export { ConfigEntries, type ConfigEntriesOptions } from "./stores/config-entries.js";
export { PreparedQueries, type PreparedQueriesOptions } from "./stores/prepared-queries.js";
