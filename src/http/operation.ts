import type { Answer } from "./answer.js";
import type { Call } from "./call.js";
import type { AnswerSource } from "./kept-answers.js";

export type Method = "GET" | "POST" | "PUT" | "DELETE";

/** A parameter as the OpenAPI document tells of it. */
export interface ParameterDoc {
  readonly name: string;
  readonly in: "query" | "header";
  readonly description: string;
}

/** One path of the OpenAPI document that an operation answers. */
export interface OperationDoc {
  /** Path parameters in braces: `/v1/config/{kind}/{name}`. */
  readonly path: string;
  readonly id: string;
  readonly summary: string;
  /** Those of {@link readParameters} and similar functions. */
  readonly parameters?: readonly ParameterDoc[];
  /** JSON schema of the body, for operations that take one. */
  readonly body?: JsonSchema;
  /** JSON schema of the answer's body; absent: the body is empty. */
  readonly answer?: JsonSchema;
  /** Media type of the text that a parameter can ask for instead. */
  readonly textAnswer?: string;
}

export type JsonSchema = {
  readonly [key: string]: JsonSchema | string | boolean | number | readonly (JsonSchema | string)[];
};

/** One line of the route table: an operation and its documentation. */
export interface Operation {
  readonly method: Method;
  /** An exact path, or a prefix when it ends in `/`, or prefix and end with a `*` between; the longest match serves a request. */
  readonly pattern: string;
  readonly run: (call: Call) => Promise<Answer>;
  /** Answers for something that is not served: there is nothing to read, and nothing to change. */
  readonly unserved?: true;
  /** Consul can answer it from a cache, and says so in a header when asked to. Nothing is cached here. */
  readonly cacheable?: true;
  /**
   * All data that an answer is made of, beside the request, the rights of its caller, who leads, and what never changes in a process. Absent:
   * it tells of the time, of streams or of other things, and no answer is kept.
   */
  readonly sources?: readonly AnswerSource[];
  readonly docs: readonly OperationDoc[];
}
