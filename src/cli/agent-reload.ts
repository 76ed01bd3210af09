import type { AclPolicies } from "../access/policies.js";
import type { Logger } from "../environment.js";
import { errorText } from "../errors.js";
import type { ServerTls } from "../rpc/server-tls.js";
import type { Definitions } from "./agent-definitions.js";
import { type AgentOptions, readPolicies, readTls } from "./agent-options.js";
import type { CommandLineIo } from "./command.js";
import type { LogLevel } from "./log.js";

/** What a running agent can be given anew. */
export interface Reloadable {
  readonly setLogLevel: (level: LogLevel) => void;
  /** Undefined: there are none. @throws for policies that cannot be used. */
  readonly replacePolicies: ((policies: AclPolicies) => void) | undefined;
  /** Undefined: HTTPS is not served. @throws for certificates that cannot be used. */
  readonly replaceCertificates: ((tls: ServerTls) => void) | undefined;
  /** @throws for one that cannot be registered. */
  readonly replaceDefinitions: (definitions: Definitions) => Promise<void>;
}

/** Options whose change takes effect at once; another one takes a new start. */
const RELOADED: ReadonlySet<string> = new Set(["acl-policies", "ca", "cert", "key", "log-level"]);

/**
 * Reads the files of an agent again when that is asked for: the configuration, the policies and the certificates. What cannot
 * be used is left as it was, and logged; the others are replaced all the same.
 */
export class AgentReload {
  readonly #io: CommandLineIo;
  readonly #readOptions: () => Promise<AgentOptions>;
  #running: { readonly started: AgentOptions; readonly logger: Logger; readonly parts: Reloadable } | undefined;
  #latest: AgentOptions | undefined;
  #defined = false;
  #wanted = false;
  #busy = false;

  constructor(io: CommandLineIo, readOptions: () => Promise<AgentOptions>) {
    this.#io = io;
    this.#readOptions = readOptions;
  }

  /** The agent runs: what was asked for before is done now. */
  start(started: AgentOptions, logger: Logger, parts: Reloadable): void {
    this.#running = { started, logger, parts };
    this.#latest = started;
    if (this.#wanted) void this.#reload();
  }

  /** However often it is asked for while files are read, they are read once more afterwards. */
  request(): void {
    this.#wanted = true;
    void this.#reload();
  }

  async #reload(): Promise<void> {
    if (this.#busy || this.#running === undefined) return;
    this.#busy = true;
    const { started, logger, parts } = this.#running;
    while (this.#wanted) {
      this.#wanted = false;
      await this.#reloadOnce(started, logger, parts);
    }
    this.#busy = false;
  }

  /** Whether there ever was a definition: with none, there is nothing to tell. */
  #defines({ services, checks }: Definitions): boolean {
    this.#defined ||= services.length + checks.length > 0;
    return this.#defined;
  }

  async #reloadOnce(started: AgentOptions, logger: Logger, parts: Reloadable): Promise<void> {
    const reloaded: string[] = [];
    const attempt = async (what: string, action: () => Promise<void>): Promise<void> => {
      try {
        await action();
        reloaded.push(what);
      } catch (error) {
        logger.error("not reloaded: what there was stays", { what, error: errorText(error) });
      }
    };
    await attempt("configuration", async () => {
      this.#latest = await this.#readOptions();
    });
    const { logLevel, acl, tlsFiles, settings, consul } = this.#latest ?? started;
    parts.setLogLevel(logLevel);
    const { replacePolicies, replaceCertificates } = parts;
    if (replacePolicies !== undefined && acl !== undefined) {
      await attempt("ACL policies", async () => replacePolicies(await readPolicies(acl, this.#io)));
    }
    if (replaceCertificates !== undefined && tlsFiles !== undefined) {
      await attempt("certificates", async () => replaceCertificates(await readTls(tlsFiles, this.#io)));
    }
    if (this.#defines(consul) || this.#defines(started.consul)) {
      await attempt("services and checks", () => parts.replaceDefinitions(consul));
    }
    logger.info("reloaded", { what: reloaded.join(", "), log_level: logLevel });
    const changed = [...settings].filter(([name, value]) => started.settings.get(name) !== value).map(([name]) => name);
    const later = changed.filter((name) => !RELOADED.has(name));
    // Whether there are any policies at all is decided when the agent starts.
    if ((replacePolicies === undefined) !== (acl === undefined)) later.push("acl-policies");
    if (later.length > 0)
      logger.warn("changed options take effect when the agent starts again", { options: later.join(", ") });
  }
}
