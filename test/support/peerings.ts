import type { Peering } from "../../src/peering/peering.js";

/** A record that says nothing. */
export const blankPeering: Peering = {
  id: "",
  name: "",
  state: "pending",
  meta: {},
  peerId: "",
  peerCaPems: [],
  peerServerName: "",
  peerServerAddresses: [],
  manualServerAddresses: [],
  remote: { partition: "", datacenter: "" },
  createIndex: 0n,
  modifyIndex: 0n,
};
