import type { LogFields, Logger } from "../base/environment.js";
import { visible, visibleJson } from "./output.js";

export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export function isLogLevel(text: string): text is LogLevel {
  return LOG_LEVELS.some((level) => level === text);
}

/** Consul's levels, and ours. */
const CONSUL_LEVELS: ReadonlyMap<string, LogLevel> = new Map([
  ["trace", "debug"],
  ["debug", "debug"],
  ["info", "info"],
  ["warn", "warn"],
  ["err", "error"],
  ["error", "error"],
]);

/** The level that Consul calls so, in any case; undefined: there is none. */
export function levelOf(name: string): LogLevel | undefined {
  return CONSUL_LEVELS.get(name.toLowerCase());
}

type LineForm = "pretty" | "json";

interface LogListener {
  readonly level: LogLevel;
  readonly form: LineForm;
  readonly line: (line: string) => void;
  /** There will be no more. */
  readonly end: () => void;
}

/** The listeners to the log as it is written, each at a level of its own. */
export class LogFeed {
  readonly #listeners = new Set<LogListener>();
  #ended = false;

  /** @returns ends it. */
  listen(listener: LogListener): () => void {
    if (this.#ended) listener.end();
    else this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  tell(level: LogLevel, line: (form: LineForm) => string): void {
    // One text for all listeners: slow ones would otherwise hold many copies.
    const made = new Map<LineForm, string>();
    for (const listener of [...this.#listeners]) {
      if (!isAsUrgent(level, listener.level)) continue;
      const text = made.get(listener.form) ?? line(listener.form);
      made.set(listener.form, text);
      listener.line(text);
    }
  }

  end(): void {
    this.#ended = true;
    for (const { end } of [...this.#listeners]) end();
    this.#listeners.clear();
  }
}

function isAsUrgent(level: LogLevel, least: LogLevel): boolean {
  return LOG_LEVELS.indexOf(level) >= LOG_LEVELS.indexOf(least);
}

export interface LineLoggerOptions {
  /** Less urgent lines than those of this level are left out; asked for each line. */
  readonly level: () => LogLevel;
  /** For people, or one JSON object a line. */
  readonly form: LineForm;
  readonly wall: () => number;
  readonly write: (line: string) => void;
  /** Called with every line, whatever its level. Default: none. */
  readonly feed?: LogFeed;
}

/** A logger of one line per message. */
export function lineLogger({ level, form, wall, write, feed }: LineLoggerOptions): Logger {
  const log =
    (own: LogLevel) =>
    (message: string, fields: LogFields = {}): void => {
      const time = new Date(wall()).toISOString();
      const line = (as: LineForm): string => lineText(as, { time, level: own, message, fields });
      if (isAsUrgent(own, level())) write(line(form));
      feed?.tell(own, line);
    };
  return { debug: log("debug"), info: log("info"), warn: log("warn"), error: log("error") };
}

interface LogEntry {
  readonly time: string;
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
}

function lineText(form: LineForm, { time, level, message, fields }: LogEntry): string {
  if (form === "json") return `${visibleJson(JSON.stringify({ ...fields, time, level, message }))}\n`;
  const details = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}=${typeof value === "string" ? JSON.stringify(value) : String(value)}`);
  // Nothing that comes from a peer must look like a line of ours.
  return `${visible(`${time} [${level.toUpperCase()}] ${message}${details.join("")}`)}\n`;
}
