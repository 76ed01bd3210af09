import assert from "node:assert/strict";
import { openApiDocument } from "../../src/http/openapi.js";
import { operations } from "../../src/http/routes.js";
import { isObject, schemaProblems } from "./json-schema.js";

/** An answer of ours or of Consul. */
export interface DocumentedAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly text: string;
}

/** An operation of the document. */
interface Documented {
  readonly method: string;
  readonly id: string;
  readonly path: RegExp;
  readonly parameters: number;
  /** Undefined: the body is empty. */
  readonly schema: unknown;
  /** Of the request; undefined: it has no body. */
  readonly body: unknown;
  /** Media types of what is answered as a text instead. */
  readonly texts: readonly string[];
}

/** Made once: it is what a server says at /v1/openapi.json, which a test of its own compares. */
const documented: readonly Documented[] = documentedOperations(openApiDocument(operations));

function documentedOperations(document: unknown): readonly Documented[] {
  return entries(member(document, "paths"))
    .flatMap(([path, item]) =>
      entries(item).map(([method, operation]): Documented => {
        const content = member(member(member(operation, "responses"), "200"), "content");
        const sent = member(member(operation, "requestBody"), "content");
        return {
          method: method.toUpperCase(),
          id: String(member(operation, "operationId")),
          // A name may hold slashes: it is all that follows, as the router sees it.
          path: new RegExp(`^${path.replace(/\{kind\}/g, "[^/]+").replace(/\{\w+\}/g, ".+")}$`),
          parameters: path.split("{").length - 1,
          schema: member(member(content, "application/json"), "schema"),
          body: member(member(sent, "application/json"), "schema"),
          texts: entries(content)
            .map(([type]) => type)
            .filter((type) => type !== "application/json"),
        };
      }),
    )
    .sort((left, right) => left.parameters - right.parameters);
}

/** The operation that serves a request; undefined when the document knows none. */
export function documentedOperation(
  method: string,
  target: string,
): Pick<Documented, "id" | "schema" | "body" | "texts"> | undefined {
  const path = decodeURIComponent(target.replace(/\?.*$/s, ""));
  // The longest match serves a request, so that fewer parameters come first, and a path of its own before a name.
  return documented.find((operation) => operation.method === method && operation.path.test(path));
}

/** Fails when a success is not of the form that the document says. */
export function assertDocumented(method: string, target: string, answer: DocumentedAnswer): void {
  const operation = answer.status === 200 ? documentedOperation(method, target) : undefined;
  if (operation === undefined) return;
  const { id, schema, texts } = operation;
  if (texts.includes(answer.contentType)) return;
  if (schema === undefined) {
    assert.equal(answer.text, "", `${id} answers with no body`);
    return;
  }
  assert.equal(answer.contentType, "application/json", id);
  assert.deepEqual(schemaProblems(JSON.parse(answer.text), schema), [], `${id}: ${answer.text.slice(0, 500)}`);
}

function member(value: unknown, name: string): unknown {
  return isObject(value) ? value[name] : undefined;
}

function entries(value: unknown): readonly (readonly [string, unknown])[] {
  return isObject(value) ? Object.entries(value) : [];
}
