import { create, type DescMessage, type Message, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { ExportedServiceSchema } from "../../../src/wire/gen/hashicorp/consul/internal/peerstream/peerstream_pb.js";
import type {
  HealthCheckSchema,
  NodeSchema,
  NodeServiceSchema,
} from "../../../src/wire/gen/hashicorp/consul/internal/service/service_pb.js";

type Fields<Schema extends DescMessage> = Exclude<MessageInitShape<Schema>, Message>;

/** A `CheckServiceNode` as the generated code takes it. */
export interface WireInstance {
  readonly Node?: Fields<typeof NodeSchema>;
  readonly Service?: Fields<typeof NodeServiceSchema>;
  readonly Checks?: Fields<typeof HealthCheckSchema>[];
}

/** An `ExportedService`, encoded by the generated code. */
export function payload(...nodes: readonly WireInstance[]): Uint8Array {
  return toBinary(ExportedServiceSchema, create(ExportedServiceSchema, { Nodes: [...nodes] }));
}

export interface WireInstanceOptions {
  readonly node?: string;
  readonly id?: string;
  readonly address?: string;
  readonly port?: number;
  readonly status?: string;
  /** Id and status of checks of the node. */
  readonly nodeChecks?: Readonly<Record<string, string>>;
}

/** One instance as Consul sends it: a flattened check, and where asked for checks of its node. */
export function wireInstance(service: string, options: WireInstanceOptions = {}): WireInstance {
  const { node = "n1", id = `${service}-1`, address = "10.0.0.1", port = 80, status, nodeChecks = {} } = options;
  const serviceChecks =
    status === undefined
      ? []
      : [
          {
            Node: node,
            CheckID: `${id}:overall-check`,
            Name: "overall-check",
            Status: status,
            ServiceID: id,
            ServiceName: service,
          },
        ];
  return {
    Node: { Node: node, Address: address, Datacenter: "dc1" },
    Service: { ID: id, Service: service, Port: port, Weights: { Passing: 1, Warning: 1 } },
    Checks: [
      ...Object.entries(nodeChecks).map(([CheckID, Status]) => ({ Node: node, CheckID, Name: CheckID, Status })),
      ...serviceChecks,
    ],
  };
}
