import { goList, goString, goStruct } from "../syntax/go-json.js";
import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import type { Operation } from "./operation.js";
import { anyObject, flag, objectOf, text, texts } from "./operation-docs.js";
import { catalogBody } from "./registration-json.js";

interface ManualBody {
  readonly Service: string;
  readonly ManualVIPs: readonly string[];
}

const bodyType = goStruct<ManualBody>("struct", { Service: goString, ManualVIPs: goList(goString) });

async function assign(call: Call): Promise<Answer> {
  call.refuseNamespace();
  call.refusePartition();
  const { Service: service, ManualVIPs: addresses } = await catalogBody(call, bodyType);
  await call.require({ resource: "mesh", access: "write" });
  const taken = await call.host.catalog.assignManualVirtualIps(service, addresses);
  const from = (taken ?? []).map((name) => ({ ServiceName: { Name: name }, Peer: "" }));
  return { json: { Found: taken !== undefined, UnassignedFrom: from.length === 0 ? null : from } };
}

/** Addresses that operators give to services of the mesh, besides the one that each is assigned. */
export const virtualIpOperations: readonly Operation[] = [
  {
    method: "PUT",
    pattern: "/v1/internal/service-virtual-ip",
    run: assign,
    docs: [
      {
        path: "/v1/internal/service-virtual-ip",
        id: "assignManualAddresses",
        summary: "Gives a local service of the mesh further virtual addresses, and takes them from others.",
        body: objectOf({ Service: text, ManualVIPs: texts }),
        answer: objectOf({ Found: flag, UnassignedFrom: { type: ["array", "null"], items: anyObject } }),
      },
    ],
  },
];
