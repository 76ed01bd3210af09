export { type Behaviour, type Misbehaviour, misbehaviours, wellBehaved } from "./behaviour.js";
export { FakePeer, type FakePeerOptions, fakePeer, type HostAnswer } from "./fake-peer.js";
export { FakeStream, type FakeStreamEnd, type TranscriptEntry } from "./fake-stream.js";
export { type FakePeerScript, keepProtocol, openStream, recordedScript } from "./script.js";
export { type TestClock, testClock } from "./test-clock.js";
