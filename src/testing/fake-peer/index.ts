export { type Behaviour, type Misbehaviour, misbehaviours, wellBehaved } from "./behaviour.js";
export { FakePeer, type FakePeerOptions, type FakePeerScript, type HostAnswer } from "./fake-peer.js";
export { FakeStream, type FakeStreamEnd, type TranscriptEntry } from "./fake-stream.js";
export { keepProtocol, openStream, recordedScript } from "./script.js";
export { fakePeer } from "./start.js";
export { type TestClock, testClock } from "./test-clock.js";
