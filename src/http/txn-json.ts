import type { JsonObject, JsonValue } from "../model/instance.js";
import {
  proxyShape,
  type Shape,
  transactionCheckDefinitionShape,
  transactionCheckShape,
  transactionSidecarShape,
} from "../model/shapes.js";
import { durationProblem, parseNanoseconds } from "../syntax/go-duration.js";
import {
  GoJsonError,
  GoNumber,
  type GoType,
  goBool,
  goList,
  goMapped,
  goOptional,
  goString,
  goStruct,
  goUint64,
  plainJson,
} from "../syntax/go-json.js";
import {
  type CheckBody,
  checkFields,
  type NodeBody,
  nodeFields,
  type ServiceBody,
  serviceFields,
} from "./registration-json.js";
import { goRecord, held } from "./shape-go.js";

// The body of a transaction is made of the records of Consul's Go client (1.21), which are not those of its server: they have
// members of other editions, no second spellings, and other durations.

const editions = { Namespace: goString, Partition: goString };

/** Fields that a struct reads and does not keep. */
function passedOver<T>(type: GoType<T>): GoType<JsonValue | undefined> {
  return held(goMapped(type, () => undefined));
}

const sidecarCheckType: GoType<JsonObject> = goRecord("api.AgentServiceCheck", transactionCheckShape);

const proxyType: GoType<JsonObject> = goRecord("api.AgentServiceConnectProxyConfig", proxyShape);

const connectType: GoType<ServiceBody["Connect"]> = goMapped(
  goStruct<{ readonly Native: boolean; readonly SidecarService: JsonObject | undefined }>("api.AgentServiceConnect", {
    Native: goBool,
    SidecarService: goOptional(
      goRecord("api.AgentServiceRegistration", transactionSidecarShape, {
        types: {
          Check: passedOver(goOptional(sidecarCheckType)),
          Checks: passedOver(goList(goOptional(sidecarCheckType))),
        },
      }),
    ),
  }),
  ({ Native }): ServiceBody["Connect"] => ({ Native, SidecarService: undefined, PeerMeta: undefined }),
);

type ServiceOperationBody = ServiceBody & {
  readonly Namespace: string;
  readonly Partition: string;
  readonly ContentHash: string;
  readonly Datacenter: string;
};

const serviceType: GoType<ServiceBody> = goMapped(
  goStruct<ServiceOperationBody>("api.AgentService", {
    ...serviceFields,
    ...editions,
    Proxy: proxyType,
    Connect: connectType,
    ContentHash: goString,
    Datacenter: goString,
  }),
  (read): ServiceBody => read,
);

const DURATIONS = ["Interval", "Timeout", "DeregisterCriticalServiceAfter"] as const;
const suffixed = (name: string): string => `${name}Duration`;

/** Unlike other durations it is read where it stands, and must be one. */
const readableDuration: GoType<JsonValue | undefined> = {
  ...goString,
  name: "api.ReadableDuration",
  form: "duration",
  zero: () => undefined,
  read: (value) => {
    if (value instanceof GoNumber) return Number(value.text);
    if (typeof value !== "string") {
      const text = JSON.stringify(plainJson(value));
      throw new GoJsonError(`strconv.ParseFloat: parsing ${JSON.stringify(text)}: invalid syntax`);
    }
    if (parseNanoseconds(value) === undefined) throw new GoJsonError(durationProblem(value));
    return value;
  },
};

/** Durations have a second key, which wins. */
const definitionShape: Shape = {
  ...transactionCheckDefinitionShape,
  ...Object.fromEntries(DURATIONS.map((name) => [suffixed(name), { as: "duration" as const }])),
};

const definitionType: GoType<JsonObject> = goMapped(
  goRecord("api.HealthCheckDefinition", definitionShape, {
    strict: false,
    decoded: true,
    types: Object.fromEntries(DURATIONS.map((name) => [name, readableDuration])),
  }),
  (record) => {
    const definition = new Map(Object.entries(record));
    for (const name of DURATIONS) {
      const second = definition.get(suffixed(name));
      if (second !== undefined) definition.set(name, second);
      definition.delete(suffixed(name));
    }
    return Object.fromEntries(definition);
  },
);

type CheckOperationBody = Omit<CheckBody, "Interval" | "Timeout"> & {
  readonly Namespace: string;
  readonly Partition: string;
};

const { Interval: _interval, Timeout: _timeout, ...operationCheckFields } = checkFields;

const checkType: GoType<CheckBody> = goMapped(
  goStruct<CheckOperationBody>("api.HealthCheck", {
    ...operationCheckFields,
    ...editions,
    Definition: definitionType,
  }),
  (read): CheckBody => ({ ...read, Interval: "", Timeout: "" }),
);

const nodeType: GoType<NodeBody> = goMapped(
  goStruct<NodeBody & { readonly Partition: string }>("api.Node", { ...nodeFields, Partition: goString }),
  (read): NodeBody => read,
);

export interface OperationBody {
  /** That there is one: of its content nothing is used here. */
  readonly KV: true | undefined;
  readonly Node: { readonly Verb: string; readonly Node: NodeBody } | undefined;
  readonly Service: { readonly Verb: string; readonly Node: string; readonly Service: ServiceBody } | undefined;
  readonly Check: { readonly Verb: string; readonly Check: CheckBody } | undefined;
}

const pairType = goStruct("api.KVTxnOp", {
  Verb: goString,
  Key: goString,
  Value: goString,
  Flags: goUint64,
  Index: goUint64,
  Session: goString,
  ...editions,
});

export const operationType: GoType<OperationBody> = goStruct<OperationBody>("api.TxnOp", {
  KV: goOptional(goMapped(pairType, (): true => true)),
  Node: goOptional(
    goStruct<{ readonly Verb: string; readonly Node: NodeBody }>("api.NodeTxnOp", { Verb: goString, Node: nodeType }),
  ),
  Service: goOptional(
    goStruct<{ readonly Verb: string; readonly Node: string; readonly Service: ServiceBody }>("api.ServiceTxnOp", {
      Verb: goString,
      Node: goString,
      Service: serviceType,
    }),
  ),
  Check: goOptional(
    goStruct<{ readonly Verb: string; readonly Check: CheckBody }>("api.CheckTxnOp", {
      Verb: goString,
      Check: checkType,
    }),
  ),
});
