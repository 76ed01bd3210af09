export {
  type Behaviour,
  FakePeer,
  type FakePeerOptions,
  type FakePeerScript,
  FakeStream,
  type FakeStreamEnd,
  fakePeer,
  type HostAnswer,
  keepProtocol,
  type Misbehaviour,
  misbehaviours,
  openStream,
  recordedScript,
  type TestClock,
  type TranscriptEntry,
  testClock,
  wellBehaved,
} from "./fake-peer/index.js";
export { type FixedAuthority, type FixedAuthorityOptions, fixedAuthority } from "./fixed-authority.js";
export { type ForcedCrash, type SimulationOptions, type SimulationResult, simulate } from "./simulator/index.js";
export { type StorageSuiteOptions, storageSuite } from "./storage-suite.js";
export { type TransportFixture, transportSuite } from "./transport-suite.js";
