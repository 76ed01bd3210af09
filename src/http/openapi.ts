import { WholeBody } from "./answer-body.js";
import type { Json } from "./json.js";
import type { JsonSchema, Operation, OperationDoc, ParameterDoc } from "./operation.js";
import { commonParameters } from "./operation-docs.js";

const PATH = "/v1/openapi.json";

/** The operation that tells of the others and of itself. */
export function openApiOperation(others: readonly Operation[]): Operation {
  // Each form is written once, when it is first needed.
  const bodies = new Map<boolean, Promise<WholeBody>>();
  const own: Operation = {
    method: "GET",
    pattern: PATH,
    run: async ({ query }) => {
      const pretty = query.has("pretty");
      const body = bodies.get(pretty) ?? WholeBody.json(openApiDocument([...others, own]), pretty);
      bodies.set(pretty, body);
      return { body: await body };
    },
    docs: [{ path: PATH, id: "openApi", summary: "This document.", answer: { type: "object" } }],
  };
  return own;
}

/** The OpenAPI 3.1 document of a route table. */
export function openApiDocument(operations: readonly Operation[]): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const operation of operations) {
    for (const doc of operation.docs) {
      paths[doc.path] = { ...paths[doc.path], [operation.method.toLowerCase()]: operationJson(doc) };
    }
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Peerage HTTP API",
      description: "Consul's HTTP API as far as cluster peering needs it. Errors are plain text.",
      version: "1",
    },
    paths,
  };
}

function operationJson(doc: OperationDoc): Json {
  const inPath = [...doc.path.matchAll(/\{(\w+)\}/g)].map(([, name = ""]) => name);
  return {
    operationId: doc.id,
    summary: doc.summary,
    parameters: [
      ...inPath.map((name) => ({ name, in: "path", required: true, schema: { type: "string" } })),
      ...[...(doc.parameters ?? []), ...commonParameters].map(parameterJson),
    ],
    ...(doc.body === undefined
      ? {}
      : { requestBody: { required: true, content: { "application/json": { schema: doc.body } } } }),
    responses: {
      "200": {
        description: "Done.",
        ...(doc.answer === undefined ? {} : { content: contentOf(doc.answer, doc.textAnswer) }),
      },
      default: {
        description: "Refused; the text says why.",
        content: { "text/plain": { schema: { type: "string" } } },
      },
    },
  };
}

function parameterJson({ name, in: place, description }: ParameterDoc): Json {
  return { name, in: place, description, schema: { type: "string" } };
}

function contentOf(answer: JsonSchema, textAnswer: string | undefined): JsonSchema {
  const text = textAnswer === undefined ? {} : { [textAnswer]: { schema: { type: "string" } } };
  return { "application/json": { schema: answer }, ...text };
}
