import type { AclPolicies } from "../access/policies.js";
import type { Logger } from "../base/environment.js";
import { errorText } from "../base/errors.js";
import type { ServerTls } from "../rpc/server-tls.js";
import type { Definitions } from "./agent-definitions.js";
import { type AgentOptions, readPolicies, readTls } from "./agent-options.js";
import type { CommandLineIo } from "./command.js";
import type { LogLevel } from "./log.js";

/** The configuration that a running agent can take without a restart. */
export interface Reloadable {
  readonly setLogLevel: (level: LogLevel) => void;
  /** Undefined: there are none. @throws for policies that cannot be used. */
  readonly replacePolicies: ((policies: AclPolicies) => void) | undefined;
  /** Undefined: HTTPS is not served. @throws for certificates that cannot be used. */
  readonly replaceCertificates: ((tls: ServerTls) => void) | undefined;
  /** @throws for one that cannot be registered. */
  readonly replaceDefinitions: (definitions: Definitions) => Promise<void>;
}

interface Running {
  readonly started: AgentOptions;
  readonly logger: Logger;
  readonly parts: Reloadable;
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
  #running: Running | undefined;
  #latest: AgentOptions | undefined;
  #defined = false;
  #begin: () => void = () => {};
  /** Settled when nothing is being read. */
  #idle: Promise<unknown>;
  /** Reading that has not begun. */
  #next: Promise<readonly string[]> | undefined;

  constructor(io: CommandLineIo, readOptions: () => Promise<AgentOptions>) {
    this.#io = io;
    this.#readOptions = readOptions;
    this.#idle = new Promise((resolve) => {
      this.#begin = () => resolve(undefined);
    });
  }

  /** The agent runs: a reload that was asked for before is done now. */
  start(started: AgentOptions, logger: Logger, parts: Reloadable): void {
    this.#running = { started, logger, parts };
    this.#latest = started;
    this.#begin();
  }

  /**
   * Reads the files once the agent runs and nothing is being read. However often it is asked for until then, they are read once.
   * @returns why parts could not be used, a text each.
   */
  request(): Promise<readonly string[]> {
    if (this.#next !== undefined) return this.#next;
    const next = this.#idle.then(async () => {
      this.#next = undefined;
      return this.#running === undefined ? [] : this.#reloadOnce(this.#running);
    });
    this.#next = next;
    this.#idle = next;
    return next;
  }

  /** Whether there ever was a definition: with none, there is nothing to tell. */
  #defines({ services, checks }: Definitions): boolean {
    this.#defined ||= services.length + checks.length > 0;
    return this.#defined;
  }

  async #reloadOnce({ started, logger, parts }: Running): Promise<readonly string[]> {
    const reloaded: string[] = [];
    const problems: string[] = [];
    const attempt = async (what: string, action: () => Promise<void>): Promise<void> => {
      try {
        await action();
        reloaded.push(what);
      } catch (error) {
        problems.push(`${what}: ${errorText(error)}`);
        logger.error("not reloaded: the former configuration stays", { what, error: errorText(error) });
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
    logger.info("reloaded", { what: reloaded.join(", "), logLevel });
    const changed = [...settings].filter(([name, value]) => started.settings.get(name) !== value).map(([name]) => name);
    const later = changed.filter((name) => !RELOADED.has(name));
    // Whether there are any policies at all is decided when the agent starts.
    if ((replacePolicies === undefined) !== (acl === undefined)) later.push("acl-policies");
    if (later.length > 0)
      logger.warn("changed options take effect when the agent starts again", { options: later.join(", ") });
    return problems;
  }
}
