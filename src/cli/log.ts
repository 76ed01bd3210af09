import type { LogFields, Logger } from "../environment.js";
import { visible, visibleJson } from "./output.js";

export const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export function isLogLevel(text: string): text is LogLevel {
  return LOG_LEVELS.some((level) => level === text);
}

export interface LineLoggerOptions {
  /** Less urgent lines than those of this level are left out; asked for each line. */
  readonly level: () => LogLevel;
  /** For people, or one JSON object a line. */
  readonly form: "pretty" | "json";
  readonly wall: () => number;
  readonly write: (line: string) => void;
}

/** A logger of one line per message. */
export function lineLogger({ level, form, wall, write }: LineLoggerOptions): Logger {
  const log =
    (own: LogLevel) =>
    (message: string, fields: LogFields = {}): void => {
      if (LOG_LEVELS.indexOf(own) < LOG_LEVELS.indexOf(level())) return;
      const time = new Date(wall()).toISOString();
      if (form === "json") {
        write(`${visibleJson(JSON.stringify({ ...fields, time, level: own, message }))}\n`);
        return;
      }
      const details = Object.entries(fields)
        .filter(([, value]) => value !== undefined)
        .map(([key, value]) => ` ${key}=${typeof value === "string" ? JSON.stringify(value) : String(value)}`);
      // Nothing that comes from a peer must look like a line of ours.
      write(`${visible(`${time} [${own.toUpperCase()}] ${message}${details.join("")}`)}\n`);
    };
  return { debug: log("debug"), info: log("info"), warn: log("warn"), error: log("error") };
}
