import { centralNames, withCentralConfig } from "../config/central-config.js";
import type { Service } from "../model/instance.js";
import type { IndexedService } from "../stores/catalog.js";
import { lowerCase } from "../syntax/names.js";
import type { Scope } from "./answer-read.js";
import type { Call } from "./call.js";
import type { ParameterDoc } from "./operation.js";

/** A read of instances, and the change that its answer makes to the service of each of them. */
export interface CentralRead {
  readonly scope: Scope;
  readonly told: (service: IndexedService) => IndexedService;
}

/**
 * The read as requested: with `?merge-central-config` proxies are shown as `proxy-defaults` and `service-defaults` configure
 * them, and a change of these ends a wait.
 *
 * @param what - is read: a text of its own for other instances.
 * @param local - the instances of our own that it is about, as of now.
 */
export function centralRead(
  { host, query, server }: Call,
  scope: Scope,
  what: string,
  local: () => Iterable<{ readonly service: Service }>,
): CentralRead {
  if (!query.has("merge-central-config")) return { scope, told: (service) => service };
  const { catalog, configEntries } = host;
  const central: Scope["central"] = ({ kind, name }) => {
    if (kind === "proxy-defaults") return true;
    if (kind !== "service-defaults") return false;
    // Which names the imports of a peer are about takes reading them: they are read again.
    if (scope.peer !== "") return true;
    const names = server.centralNames.of(`${catalog.revision} ${configEntries.index}`, what, () => {
      const found = new Set<string>();
      for (const { service } of local()) {
        for (const each of centralNames(service, configEntries.entries)) found.add(each);
      }
      return found;
    });
    return names.has(lowerCase(name));
  };
  return {
    scope: { ...scope, central },
    told: (service) => withCentralConfig(service, configEntries.entries),
  };
}

export const centralParameter: ParameterDoc = {
  name: "merge-central-config",
  in: "query",
  description: "Present: proxies and gateways are shown as `proxy-defaults` and `service-defaults` configure them.",
};
