// Envoy's messages, as far as they are served (`proto/envoy`), under names that tell them apart. Loaded by the mesh alone.
export {
  type AccessLog,
  AccessLogSchema,
} from "./gen/envoy/config/accesslog/v3/accesslog_pb.js";
export {
  type Cluster,
  Cluster_DiscoveryType,
  Cluster_DnsLookupFamily,
  Cluster_LbPolicy,
  ClusterSchema,
  OutlierDetectionSchema,
} from "./gen/envoy/config/cluster/v3/cluster_pb.js";
export {
  type Address,
  AddressSchema,
  ApiVersion,
  ConfigSourceSchema,
  HealthStatus,
  HttpProtocolOptions_HeadersWithUnderscoresAction as HeadersWithUnderscores,
  SubstitutionFormatStringSchema,
  TrafficDirection,
  TransportSocketSchema,
} from "./gen/envoy/config/core/v3/core_pb.js";
export {
  type ClusterLoadAssignment,
  ClusterLoadAssignmentSchema,
} from "./gen/envoy/config/endpoint/v3/endpoint_pb.js";
export {
  type Filter,
  type FilterChain,
  FilterChainSchema,
  FilterSchema,
  type Listener,
  ListenerFilterSchema,
  ListenerSchema,
} from "./gen/envoy/config/listener/v3/listener_pb.js";
export {
  PermissionSchema,
  PrincipalSchema,
  RBAC_Action,
  RBACSchema,
} from "./gen/envoy/config/rbac/v3/rbac_pb.js";
export {
  HeaderMatcherSchema,
  RouteActionSchema,
  type RouteConfiguration,
  RouteConfigurationSchema,
  RouteMatchSchema,
  RouteSchema,
} from "./gen/envoy/config/route/v3/route_pb.js";
export { FileAccessLogSchema } from "./gen/envoy/extensions/access_loggers/file/v3/file_pb.js";
export {
  StderrAccessLogSchema,
  StdoutAccessLogSchema,
} from "./gen/envoy/extensions/access_loggers/stream/v3/stream_pb.js";
export { ClusterConfigSchema as AggregateClusterSchema } from "./gen/envoy/extensions/clusters/aggregate/v3/aggregate_pb.js";
export { ConfigSchema as GrpcHttp1BridgeSchema } from "./gen/envoy/extensions/filters/http/grpc_http1_bridge/v3/grpc_http1_bridge_pb.js";
export { FilterConfigSchema as GrpcStatsSchema } from "./gen/envoy/extensions/filters/http/grpc_stats/v3/grpc_stats_pb.js";
export { ConfigSchema as HeaderToMetadataSchema } from "./gen/envoy/extensions/filters/http/header_to_metadata/v3/header_to_metadata_pb.js";
export { RBACSchema as HttpRbacSchema } from "./gen/envoy/extensions/filters/http/rbac/v3/rbac_pb.js";
export { RouterSchema } from "./gen/envoy/extensions/filters/http/router/v3/router_pb.js";
export { OriginalDstSchema } from "./gen/envoy/extensions/filters/listener/original_dst/v3/original_dst_pb.js";
export { TlsInspectorSchema } from "./gen/envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector_pb.js";
export { ConnectionLimitSchema } from "./gen/envoy/extensions/filters/network/connection_limit/v3/connection_limit_pb.js";
export {
  HttpConnectionManager_ForwardClientCertDetails as ForwardClientCertDetails,
  HttpConnectionManager_PathWithEscapedSlashesAction as EscapedSlashes,
  HttpConnectionManagerSchema,
  HttpFilterSchema,
} from "./gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js";
export { RBACSchema as NetworkRbacSchema } from "./gen/envoy/extensions/filters/network/rbac/v3/rbac_pb.js";
export { SniClusterSchema } from "./gen/envoy/extensions/filters/network/sni_cluster/v3/sni_cluster_pb.js";
export { TcpProxySchema } from "./gen/envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy_pb.js";
export {
  CertificateValidationContextSchema,
  CommonTlsContextSchema,
  DownstreamTlsContextSchema,
  SecretSchema,
  SPIFFECertValidatorConfigSchema,
  SubjectAltNameMatcher_SanType as SanType,
  TlsParameters_TlsProtocol as TlsProtocol,
  UpstreamTlsContextSchema,
} from "./gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.js";
export { HttpProtocolOptionsSchema } from "./gen/envoy/extensions/upstreams/http/v3/http_pb.js";
export {
  AggregatedDiscoveryService,
  type DeltaDiscoveryRequest,
  DeltaDiscoveryRequestSchema,
  type DeltaDiscoveryResponse,
  DeltaDiscoveryResponseSchema,
  type Resource,
} from "./gen/envoy/service/discovery/v3/discovery_pb.js";
export { type StringMatcher, StringMatcherSchema } from "./gen/envoy/type/matcher/v3/matcher_pb.js";
