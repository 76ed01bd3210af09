import { agentCheckOperations } from "./agent-checks.js";
import { agentReadOperations } from "./agent-reads.js";
import { agentServiceOperations } from "./agent-services.js";
import { authorizeOperations } from "./authorize.js";
import { catalogOperations } from "./catalog.js";
import { configOperations } from "./config.js";
import { connectCaOperations } from "./connect-ca.js";
import { discoveryChainOperations } from "./discovery-chain.js";
import { explainOperations } from "./explain.js";
import { gatewayPageOperations } from "./gateway-pages.js";
import { gatewayOperations } from "./gateways.js";
import { healthOperations } from "./health.js";
import { intentionOperations } from "./intentions.js";
import { metricsOperations } from "./metrics.js";
import type { Operation } from "./operation.js";
import { peeringOperations } from "./peering.js";
import { proxyOperations } from "./proxies.js";
import { queryOperations } from "./queries.js";
import { systemOperations } from "./system.js";
import { txnOperations } from "./txn.js";
import { uiOperations } from "./ui.js";
import { unservedOperations } from "./unserved.js";
import { virtualIpOperations } from "./virtual-ips.js";

/** Everything that is served, the OpenAPI document aside, which tells of it. */
export const operations: readonly Operation[] = [
  ...peeringOperations,
  ...configOperations,
  ...intentionOperations,
  ...discoveryChainOperations,
  ...catalogOperations,
  ...gatewayPageOperations,
  ...gatewayOperations,
  ...healthOperations,
  ...queryOperations,
  ...txnOperations,
  ...agentServiceOperations,
  ...agentCheckOperations,
  ...agentReadOperations,
  ...explainOperations,
  ...proxyOperations,
  ...systemOperations,
  ...connectCaOperations,
  ...authorizeOperations,
  ...metricsOperations,
  ...uiOperations,
  ...virtualIpOperations,
  ...unservedOperations,
];
