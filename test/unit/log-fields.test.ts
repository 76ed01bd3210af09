// The names of the fields of log lines: one spelling, one name for one thing, and each of them documented.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import ts from "typescript";

const LEVELS = /^(debug|info|warn|error)$/;
const LOGGERS = /(^|[.#])(log|logger)$/i;

/** The names of an object literal, with those that are spread into it under a condition. */
function namesOf(literal: ts.ObjectLiteralExpression): readonly string[] {
  return literal.properties.flatMap((property) => {
    if (property.name !== undefined) return [property.name.getText()];
    const names: string[] = [];
    const visit = (node: ts.Node): void => {
      if (ts.isObjectLiteralExpression(node)) names.push(...namesOf(node));
      else ts.forEachChild(node, visit);
    };
    visit(property);
    return names;
  });
}

/** The initializer of the nearest constant of that name. */
function constantOf(identifier: ts.Identifier): ts.Expression | undefined {
  for (let node: ts.Node = identifier; node !== undefined; node = node.parent) {
    const statements = ts.isBlock(node) || ts.isSourceFile(node) || ts.isCaseClause(node) ? node.statements : [];
    for (const statement of statements) {
      if (!ts.isVariableStatement(statement)) continue;
      const declaration = statement.declarationList.declarations.find(({ name }) => name.getText() === identifier.text);
      if (declaration !== undefined) return declaration.initializer;
    }
  }
  return undefined;
}

/** The fields that a file gives to loggers and to `Incidents.report`, there and then or in a constant. */
function fieldsOf(file: string): readonly string[] {
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    ts.forEachChild(node, visit);
    if (!ts.isCallExpression(node) || !ts.isPropertyAccessExpression(node.expression)) return;
    const { expression, name } = node.expression;
    const isLine = LEVELS.test(name.text) && LOGGERS.test(expression.getText());
    const given = node.arguments[isLine ? 1 : 2];
    if (!isLine && name.text !== "report") return;
    const literal = given !== undefined && ts.isIdentifier(given) ? constantOf(given) : given;
    if (literal !== undefined && ts.isObjectLiteralExpression(literal)) found.push(...namesOf(literal));
  };
  visit(ts.createSourceFile(file, readFileSync(file, "utf8"), ts.ScriptTarget.Latest, true));
  return found;
}

const files = readdirSync("src", { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts"))
  .map((file) => join("src", file));
const used = new Map<string, string>(files.flatMap((file) => fieldsOf(file).map((name) => [name, file])));

describe("the fields of log lines", () => {
  it("are spelled in one way", () => {
    assert.ok(used.size > 30 && used.has("peer") && used.has("error") && used.has("source"));
    assert.deepEqual(
      [...used].filter(([name]) => !/^[a-z]+([A-Z][a-z]+)*$/.test(name)),
      [],
    );
  });

  it("are those of docs/log-fields.md", () => {
    const documented = [...readFileSync("docs/log-fields.md", "utf8").matchAll(/^\| `(\w+)` \|/gm)].map(
      ([, name = ""]) => name,
    );
    assert.deepEqual([...used.keys()].sort(), [...documented].sort());
  });
});
