import { checksOf } from "../model/check-groups.js";
import type { Check, Service } from "../model/instance.js";
import type { Listing } from "../model/listing.js";
import { checkTable, type Indexes, indexesTable, nodeTable, serviceTable } from "../model/records.js";
import type { IndexedCheck, IndexedNode, IndexedService } from "../stores/catalog.js";
import { elementsOf, type Fields } from "./filter/fields.js";
import type { LazyStruct } from "./json.js";
import type { KeptTexts } from "./kept-texts.js";
import type { JsonSchema } from "./operation.js";
import {
  filterOf,
  groupMember,
  listMember,
  type Members,
  membersIn,
  membersOf,
  onlyWhere,
  ordered,
  schemaOf,
  textMember,
  writerOf,
} from "./record-members.js";

// The records of the catalog: how answers show them, what their document says of them, and what filters may name in them: every
// field that is shown (D-65).

/** A node, and the peer it was imported from; `""` for our own. */
export interface NodeView {
  readonly peer: string;
  readonly node: IndexedNode;
}

export interface ServiceView {
  readonly peer: string;
  readonly service: IndexedService;
}

export interface CheckView {
  readonly peer: string;
  readonly check: IndexedCheck;
}

/** One instance with its node and the checks of both. */
export interface InstanceView extends NodeView, ServiceView {
  readonly checks: readonly IndexedCheck[];
}

/** A node with everything on it. */
export interface NodeContents {
  readonly node: NodeView;
  /** By id. */
  readonly services: Listing<InstanceView>;
  /** By id, those of the node among those of its services. */
  readonly checks: Listing<CheckView>;
}

/** A service as its own agent tells of it. */
export interface AgentServiceView extends ServiceView {
  readonly datacenter: string;
}

interface FromPeer {
  readonly peer: string;
}

const peerName = [textMember("PeerName", ({ peer }: FromPeer) => peer)];
const nodeOf = ({ node }: NodeView): IndexedNode => node;
const serviceOf = ({ service }: ServiceView): IndexedService => service;
const checkOf = ({ check }: CheckView): IndexedCheck => check;
/** Members that every stored record has. */
export const indexMembers: Members<Indexes> = membersOf(indexesTable, "own");

// Consul's `Node`.
const nodeMembers: Members<NodeView> = ordered(
  [...membersIn(membersOf(nodeTable, "own"), nodeOf), ...peerName, ...membersIn(indexMembers, nodeOf)],
  ["ID", "Node", "Address", "Datacenter", "PeerName"],
);
export const nodeJson: (view: NodeView) => LazyStruct = writerOf(nodeMembers);
export const nodeSchema: JsonSchema = schemaOf(nodeMembers);
export const nodeFields: Fields<NodeView> = filterOf(nodeMembers);

// Consul's `NodeService`. `Port` is the default one of several everywhere; in Consul 1.22 only where instances are listed.
const serviceMembersOf = (members: Members<Service>): Members<ServiceView> => [
  ...membersIn(members, serviceOf),
  textMember("PeerName", ({ peer }) => peer, true),
  ...membersIn(indexMembers, serviceOf),
];
const serviceMembers = serviceMembersOf(membersOf(serviceTable, "own"));
export const serviceJson: (view: ServiceView) => LazyStruct = writerOf(serviceMembers);
export const serviceSchema: JsonSchema = schemaOf(serviceMembers);
export const serviceFields: Fields<ServiceView> = filterOf(serviceMembers);

// Consul's `HealthCheck`.
const checkMembersOf = (members: Members<Check>): Members<CheckView> => [
  ...ordered(
    [...membersIn(members, checkOf), ...peerName],
    members.map(({ name }) => name).filter((name) => name !== "Definition"),
    ["Definition"],
  ),
  ...membersIn(indexMembers, checkOf),
];
const checkMembers = checkMembersOf(membersOf(checkTable, "own"));
export const checkJson: (view: CheckView) => LazyStruct = writerOf(checkMembers);
export const checkSchema: JsonSchema = schemaOf(checkMembers);
export const checkFields: Fields<CheckView> = filterOf(checkMembers);

// The same where Consul tells that there are no tags as `null`.
const looseServiceMembers = serviceMembersOf(membersOf(serviceTable, "own", { tags: "null" }));
const looseCheckMembers = checkMembersOf(membersOf(checkTable, "own", { serviceTags: "null" }));
export const looseServiceJson: (view: ServiceView) => LazyStruct = writerOf(looseServiceMembers);
export const looseServiceSchema: JsonSchema = schemaOf(looseServiceMembers);
export const looseCheckJson: (view: CheckView) => LazyStruct = writerOf(looseCheckMembers);
export const looseCheckSchema: JsonSchema = schemaOf(looseCheckMembers);

// Consul's `CheckServiceNode`.
const instanceMembers: Members<InstanceView> = [
  groupMember("Node", nodeMembers),
  groupMember("Service", serviceMembers),
  listMember(
    "Checks",
    { sources: (view: InstanceView) => checksOf(view), make: (check, { peer }) => ({ peer, check }) },
    checkMembers,
  ),
];
export const instanceJson: (view: InstanceView) => LazyStruct = writerOf(instanceMembers);
export const instanceSchema: JsonSchema = schemaOf(instanceMembers);
export const instanceFields: Fields<InstanceView> = filterOf(instanceMembers);

// Consul's `ServiceNode`: an instance with its node in one flat object.
const flatMembers: Members<NodeView & ServiceView> = [
  ...membersIn(membersOf(nodeTable, "flat"), nodeOf),
  ...membersIn(
    ordered(
      membersOf(serviceTable, "flat"),
      [
        "ServiceKind",
        "ServiceID",
        "ServiceName",
        "ServiceTags",
        "ServiceAddress",
        "ServiceTaggedAddresses",
        "ServiceWeights",
      ],
      ["ServiceProxy", "ServiceConnect", "ServiceLocality"],
    ),
    serviceOf,
  ),
  ...peerName,
  ...membersIn(indexMembers, serviceOf),
];
export const flatJson: (view: NodeView & ServiceView) => LazyStruct = writerOf(flatMembers);
export const flatInstanceSchema: JsonSchema = schemaOf(flatMembers);
export const flatFields: Fields<NodeView & ServiceView> = filterOf(flatMembers);

// A node with everything on it, as Consul's own pages read it.
const nodeHeadMembers: Members<NodeContents> = [
  ...membersIn(
    ["ID", "Node", "PeerName", "Address", "TaggedAddresses", "Meta"].flatMap((name) =>
      nodeMembers.filter((member) => member.name === name),
    ),
    ({ node }: NodeContents) => node,
  ),
];
const nodeContentsMembers: Members<NodeContents> = [
  ...nodeHeadMembers,
  listMember(
    "Services",
    elementsOf(({ services }) => services),
    looseServiceMembers,
  ),
  listMember(
    "Checks",
    elementsOf(({ checks }) => checks),
    looseCheckMembers,
  ),
];
const nodeHeadJson: (contents: NodeContents) => LazyStruct = writerOf(nodeHeadMembers);
/** @param texts - keep those of the lists, which may be long. */
export function nodeContentsJson(contents: NodeContents, texts: KeptTexts, basis: bigint): LazyStruct {
  const { node, services, checks } = contents;
  const form = `${node.peer} ${node.node.name}`;
  return nodeHeadJson(contents)
    .with("Services", texts.list(`loose services ${form}`, services, looseServiceJson, basis))
    .with("Checks", texts.list(`loose checks ${form}`, checks, looseCheckJson));
}
export const nodeContentsSchema: JsonSchema = schemaOf(nodeContentsMembers);
export const nodeContentsFields: Fields<NodeContents> = filterOf(nodeContentsMembers);

// Consul's `AgentService`: it tells of proxies at proxies alone, and of the mesh at what is a part of it.
const isProxy = ({ kind }: Service): boolean => kind === "connect-proxy" || kind.endsWith("-gateway");
const agentMembers: Members<AgentServiceView> = ordered(
  [
    ...membersIn(
      membersOf(serviceTable, "agent").map((member) => {
        if (member.name === "Proxy") return onlyWhere(member, isProxy);
        if (member.name === "Connect") return onlyWhere(member, ({ connect }) => connect?.native === true);
        return member;
      }),
      serviceOf,
    ),
    textMember("Datacenter", ({ datacenter }) => datacenter, true),
  ],
  ["Kind", "ID", "Service", "Tags", "Meta", "Port", "Ports", "Address"],
  ["Datacenter", "Locality"],
);
export const agentServiceJson: (view: AgentServiceView) => LazyStruct = writerOf(agentMembers);
/** `ContentHash` is of single services. */
export const agentServiceSchema: JsonSchema = schemaOf([
  ...agentMembers,
  textMember("ContentHash", (_: AgentServiceView) => ""),
]);
/** Of a service of our own, `PeerName` is empty and not shown; filters may name it in Consul, too. */
export const agentServiceFields: Fields<AgentServiceView> = filterOf([...agentMembers, ...peerName]);
