/** The type of the value under a key of Consul's configuration. */
export type Shape =
  | "text"
  | "flag"
  | "integer"
  | "number"
  /** Anything: a plugin or an extension reads it. */
  | "any"
  | { readonly kind: "list"; readonly of: Shape }
  /** Its keys are names that the operator gives. */
  | { readonly kind: "map"; readonly of: Shape }
  | { readonly kind: "keys"; readonly keys: () => ReadonlyMap<string, Shape> };

type Scalars = Readonly<Partial<Record<"text" | "flag" | "integer" | "number" | "any" | "texts" | "textMap", string>>>;

function listOf(of: Shape): Shape {
  return { kind: "list", of };
}

function mapOf(of: Shape): Shape {
  return { kind: "map", of };
}

/**
 * An object with these keys.
 * @param scalars - names of keys, separated by spaces, by the type of their values.
 * @param others - a function where an object may hold another one of its own kind.
 */
function keys(scalars: Scalars, others: Readonly<Record<string, Shape | (() => Shape)>> = {}): Shape {
  return {
    kind: "keys",
    keys: () => {
      const all = new Map<string, Shape>();
      for (const shape of ["text", "flag", "integer", "number", "any"] as const) {
        for (const key of wordsOf(scalars[shape])) all.set(key, shape);
      }
      for (const key of wordsOf(scalars.texts)) all.set(key, listOf("text"));
      for (const key of wordsOf(scalars.textMap)) all.set(key, mapOf("text"));
      for (const [key, shape] of Object.entries(others)) all.set(key, typeof shape === "function" ? shape() : shape);
      return all;
    },
  };
}

function wordsOf(text: string | undefined): readonly string[] {
  return (text ?? "").split(" ").filter((word) => word !== "");
}

/** A definition of a check. */
export const checkKeys: Shape = keys(
  {
    text: "id name notes service_id serviceid token status http method body tcp udp interval docker_container_id dockercontainerid shell grpc tls_server_name alias_node alias_service timeout ttl h2ping os_service deregister_critical_service_after deregistercriticalserviceafter",
    texts: "args scriptargs",
    flag: "disable_redirects tcp_use_tls grpc_use_tls tls_skip_verify tlsskipverify h2ping_use_tls",
    integer: "output_max_size success_before_passing failures_before_warning failures_before_critical",
  },
  { header: mapOf(listOf("text")) },
);
const proxyKeys: Shape = keys(
  {
    text: "destination_service_name destination_service_id local_service_address local_service_socket_path mode",
    integer: "local_service_port",
    any: "config",
  },
  {
    transparent_proxy: keys({ integer: "outbound_listener_port", flag: "dialed_directly" }),
    upstreams: listOf(
      keys(
        {
          text: "destination_type destination_namespace destination_partition destination_peer destination_name datacenter local_bind_address local_bind_socket_path local_bind_socket_mode",
          integer: "local_bind_port",
          any: "config",
        },
        { mesh_gateway: keys({ text: "mode" }) },
      ),
    ),
    mesh_gateway: keys({ text: "mode" }),
    expose: keys(
      { flag: "checks", integer: "port" },
      { paths: listOf(keys({ integer: "listener_port local_path_port", text: "path protocol" })) },
    ),
  },
);
const tlsKeys: Shape = keys({
  text: "ca_file ca_path cert_file key_file tls_min_version tls_cipher_suites",
  flag: "verify_incoming verify_outgoing verify_server_hostname use_auto_cert",
});
/** A definition of a service. */
export const serviceKeys: Shape = keys(
  {
    text: "kind id name address socket_path token",
    texts: "tags",
    textMap: "meta",
    integer: "port",
    flag: "enable_tag_override",
  },
  {
    tagged_addresses: mapOf(keys({ text: "address", integer: "port" })),
    check: checkKeys,
    checks: listOf(checkKeys),
    weights: keys({ integer: "passing warning" }),
    proxy: proxyKeys,
    connect: keys({ flag: "native" }, { sidecar_service: () => serviceKeys }),
    locality: keys({ text: "region zone" }),
  },
);
/** Every key that Consul 1.21 takes in its configuration, also those without an effect here. */
export const configKeys: Shape = keys(
  {
    text: "advertise_addr advertise_addr_ipv4 advertise_addr_ipv6 advertise_addr_wan advertise_addr_wan_ipv4 advertise_addr_wan_ipv6 advertise_reconnect_timeout bind_addr check_update_interval client_addr domain alt_domain data_dir datacenter default_query_time default_intention_policy discovery_max_stale encrypt license_path log_level log_file log_rotate_duration max_query_time node_id node_name pid_file primary_datacenter primary_gateways_interval raft_snapshot_interval reconnect_timeout reconnect_timeout_wan retry_interval retry_interval_wan serf_lan serf_wan server_name server_rejoin_age_max session_ttl_min syslog_facility ui_content_path ui_dir ae_interval check_deregister_interval_min check_reap_interval revision sync_coordinate_interval_min version version_prerelease version_metadata build_date segment partition license_poll_base_time license_poll_max_time license_update_base_time license_update_max_time acl_agent_master_token acl_agent_token acl_token acl_master_token acl_replication_token acl_datacenter acl_default_policy acl_down_policy acl_ttl ca_file ca_path cert_file key_file tls_cipher_suites tls_min_version",
    flag: "bootstrap disable_anonymous_signature disable_coordinates disable_host_node_id disable_http_unprintable_char_filter disable_keyring_file disable_remote_exec disable_update_check discard_check_output enable_agent_tls_for_checks enable_central_service_config enable_debug enable_script_checks enable_local_script_checks enable_syslog encrypt_verify_incoming encrypt_verify_outgoing leave_on_terminate log_json raft_prevote_disabled rejoin_after_leave auto_reload_config server skip_leave_on_interrupt translate_wan_addrs ui use_streaming_backend read_replica non_voting_server acl_enable_key_list_policy enable_acl_replication verify_incoming verify_incoming_https verify_incoming_rpc verify_outgoing verify_server_hostname tls_prefer_server_cipher_suites",
    integer:
      "bootstrap_expect check_output_max_size log_rotate_bytes log_rotate_max_files protocol raft_protocol raft_snapshot_threshold raft_trailing_logs retry_max retry_max_wan segment_limit segment_name_limit",
    texts:
      "recursors experiments primary_gateways retry_join retry_join_wan serf_lan_allowed_cidrs serf_wan_allowed_cidrs start_join start_join_wan",
    textMap: "node_meta tagged_addresses",
    any: "snapshot_agent raft_boltdb",
    number: "sync_coordinate_rate_target",
  },
  {
    acl: keys(
      {
        flag: "enabled enable_token_replication enable_key_list_policy enable_token_persistence msp_disable_bootstrap",
        text: "policy_ttl role_ttl token_ttl down_policy default_policy",
      },
      {
        tokens: keys(
          {
            text: "initial_management replication agent_recovery default agent config_file_service_registration dns master agent_master",
          },
          { managed_service_provider: listOf(keys({ text: "accessor_id secret_id" })) },
        ),
      },
    ),
    addresses: keys({ text: "dns http https grpc grpc_tls" }),
    auto_config: keys(
      { flag: "enabled", text: "intro_token intro_token_file", texts: "server_addresses dns_sans ip_sans" },
      {
        authorization: keys(
          { flag: "enabled" },
          {
            static: keys({
              texts: "claim_assertions jwt_supported_algs bound_audiences jwt_validation_pub_keys",
              flag: "allow_reuse",
              textMap: "claim_mappings list_claim_mappings",
              text: "oidc_discovery_url oidc_discovery_ca_cert jwks_url jwks_ca_cert bound_issuer expiration_leeway not_before_leeway clock_skew_leeway",
            }),
          },
        ),
      },
    ),
    autopilot: keys({
      flag: "cleanup_dead_servers disable_upgrade_migration",
      text: "last_contact_threshold server_stabilization_time redundancy_zone_tag upgrade_version_tag",
      integer: "max_trailing_logs min_quorum",
    }),
    cache: keys({ integer: "entry_fetch_max_burst", number: "entry_fetch_rate" }),
    check: checkKeys,
    checks: listOf(checkKeys),
    cloud: keys({ text: "resource_id client_id client_secret hostname auth_url scada_address" }),
    config_entries: keys({}, { bootstrap: listOf("any") }),
    auto_encrypt: keys({ flag: "tls allow_tls", texts: "dns_san ip_san" }),
    connect: keys({
      flag: "enabled enable_mesh_gateway_wan_federation",
      text: "ca_provider default_deregister_critical_service_after test_ca_leaf_root_change_spread",
      any: "ca_config",
    }),
    dns_config: keys(
      {
        flag: "allow_stale disable_compression enable_truncate only_passing enable_additional_node_meta_txt use_cache prefer_namespace",
        integer: "a_record_limit udp_answer_limit",
        text: "max_stale node_ttl recursor_strategy recursor_timeout cache_max_age",
        textMap: "service_ttl",
      },
      { soa: keys({ integer: "refresh retry expire min_ttl" }) },
    ),
    gossip_lan: keys({
      integer: "gossip_nodes suspicion_mult retransmit_mult",
      text: "gossip_interval probe_interval probe_timeout",
    }),
    gossip_wan: keys({
      integer: "gossip_nodes suspicion_mult retransmit_mult",
      text: "gossip_interval probe_interval probe_timeout",
    }),
    http_config: keys({
      texts: "block_endpoints allow_write_http_from",
      textMap: "response_headers",
      flag: "use_cache",
      integer: "max_header_bytes",
    }),
    limits: keys(
      {
        integer: "http_max_conns_per_client rpc_max_burst rpc_max_conns_per_client kv_max_value_size txn_max_req_len",
        text: "https_handshake_timeout rpc_client_timeout rpc_handshake_timeout",
        number: "rpc_rate",
      },
      { request_limits: keys({ text: "mode", number: "read_rate write_rate" }) },
    ),
    locality: keys({ text: "region zone" }),
    peering: keys({ flag: "enabled test_allow_peer_registrations" }),
    performance: keys({
      text: "leave_drain_time rpc_hold_timeout grpc_keepalive_interval grpc_keepalive_timeout",
      integer: "raft_multiplier",
      flag: "enable_xds_load_balancing",
    }),
    ports: keys({
      integer:
        "dns http https serf_lan serf_wan server grpc grpc_tls proxy_min_port proxy_max_port sidecar_min_port sidecar_max_port expose_min_port expose_max_port",
    }),
    service: serviceKeys,
    services: listOf(serviceKeys),
    tls: keys({}, { defaults: tlsKeys, internal_rpc: tlsKeys, https: tlsKeys, grpc: tlsKeys }),
    telemetry: keys({
      text: "circonus_api_app circonus_api_token circonus_api_url circonus_broker_id circonus_broker_select_tag circonus_check_display_name circonus_check_force_metric_activation circonus_check_id circonus_check_instance_id circonus_check_search_tag circonus_check_tags circonus_submission_interval circonus_submission_url dogstatsd_addr metrics_prefix prometheus_retention_time statsd_address statsite_address",
      flag: "disable_hostname disable_per_tenancy_usage_metrics enable_host_metrics retry_failed_connection filter_default",
      texts: "dogstatsd_tags prefix_filter",
    }),
    xds: keys({ number: "update_max_per_second" }),
    ui_config: keys(
      {
        flag: "enabled",
        text: "dir content_path metrics_provider metrics_provider_options_json",
        texts: "metrics_provider_files",
        textMap: "dashboard_url_templates",
      },
      {
        metrics_proxy: keys(
          { text: "base_url", texts: "path_allowlist" },
          { add_headers: listOf(keys({ text: "name value" })) },
        ),
      },
    ),
    unix_sockets: keys({ text: "group mode user" }),
    watches: listOf("any"),
    rpc: keys({ flag: "enable_streaming" }),
    raft_logstore: keys(
      { text: "backend", flag: "disable_log_cache" },
      {
        verification: keys({ flag: "enabled", text: "interval" }),
        boltdb: keys({ flag: "no_freelist_sync" }),
        wal: keys({ integer: "segment_size_mb" }),
      },
    ),
    consul: keys(
      {},
      {
        coordinate: keys({ integer: "update_batch_size update_max_batches", text: "update_period" }),
        raft: keys({ text: "election_timeout heartbeat_timeout leader_lease_timeout" }),
        server: keys({ text: "health_interval" }),
      },
    ),
    audit: keys(
      { flag: "enabled rpc_enabled" },
      {
        sink: mapOf(
          keys({
            text: "type format path delivery_guarantee mode rotate_duration",
            integer: "rotate_bytes rotate_max_files",
          }),
        ),
      },
    ),
    segments: listOf(keys({ text: "advertise bind name", integer: "port", flag: "rpc_listener" })),
    reporting: keys({}, { license: keys({ flag: "enabled" }) }),
  },
);
