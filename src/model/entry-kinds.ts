/** The kinds of config entries that Consul's Community Edition knows (1.21). */
export const CONFIG_ENTRY_KINDS = [
  "api-gateway",
  "bound-api-gateway",
  "exported-services",
  "file-system-certificate",
  "http-route",
  "ingress-gateway",
  "inline-certificate",
  "jwt-provider",
  "mesh",
  "proxy-defaults",
  "sameness-group",
  "service-defaults",
  "service-intentions",
  "service-resolver",
  "service-router",
  "service-splitter",
  "tcp-route",
  "terminating-gateway",
] as const;

export type ConfigEntryKind = (typeof CONFIG_ENTRY_KINDS)[number];

export function isConfigEntryKind(kind: string): kind is ConfigEntryKind {
  return CONFIG_ENTRY_KINDS.some((known) => known === kind);
}
