import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { goTemplate } from "../../../src/syntax/go-template.js";

const data = {
  name: "web",
  port: "80",
  on: true,
  off: false,
  none: "",
  list: ["a", "b"],
  inner: { deep: { er: "x" } },
};
const filled = (template: string) => goTemplate("T", template, data);

describe("templates of Go", () => {
  it("are filled as Go fills them", () => {
    const cases: readonly (readonly [template: string, expected: string])[] = [
      ["plain } text {", "plain } text {"],
      ["{{.name}}:{{ .port }}", "web:80"],
      ["a  {{- .name -}}  b", "awebb"],
      ["{{.inner.deep.er}}{{(.inner).deep.er}}{{$.name}}", "xxweb"],
      ["{{if .on}}y{{else}}n{{end}}{{if .off}}y{{else}}n{{end}}{{if .none}}y{{end}}", "yn"],
      ["{{if .off}}1{{else if .on}}2{{else}}3{{end}}", "2"],
      ["{{range .list}}<{{.}}>{{end}}{{range .none}}{{else}}empty{{end}}", "<a><b>empty"],
      ["{{range $i, $e := .list}}{{if $i}},{{end}}{{$i}}{{$e}}{{$.name}}{{end}}", "0aweb,1bweb"],
      ["{{range $e := .list}}{{$e}}{{end}}", "ab"],
      ["{{with .name}}{{.}}{{end}}{{with .none}}{{.}}{{else}}-{{end}}", "web-"],
      ["{{with $x := .inner}}{{$x.deep.er}}{{.deep.er}}{{end}}", "xx"],
      ["{{$x := .name}}{{$x}}{{if .on}}{{$x := .port}}{{$x}}{{end}}{{$x}}", "web80web"],
      ['{{if eq .name "db" "web"}}y{{end}}{{if ne .name "db"}}y{{end}}{{if not (eq .name `db`)}}y{{end}}', "yyy"],
      ["{{and .name .none}}|{{or .none .name}}|{{and .on .port}}|{{or .none .off}}", "|web|80|false"],
      ['{{len .name}}{{.name | len}}{{.name | print "of-"}}{{print 1 "}}" true}}', "33of-web1}}true"],
      ["{{/* }} none */}}a{{- /* x */ -}} b", "ab"],
      ['{{"a\\"b"}}{{`{{`}}', 'a"b{{'],
    ];
    for (const [template, expected] of cases) assert.equal(filled(template), expected, template);
    // Side by side they are no deeper.
    assert.equal(filled("{{if (.on)}}y{{end}}".repeat(300)), "y".repeat(300));
  });

  it("are refused with the reason, where Go refuses them, or knows more", () => {
    const cases: readonly (readonly [template: string, why: RegExp])[] = [
      ["{{.name", /an action has no end/],
      ["{{if .on}}", /a block has no {{end}}/],
      ["{{if .on}}{{else}}", /a block has no {{end}}/],
      ["{{end}}", /unexpected {{end}}/],
      ["{{if .on}}{{else}}{{else}}{{end}}", /a block has no {{end}}/],
      ["{{.nope}}", /there is no field "nope"/],
      ["{{.name.nope}}", /there is no field "nope"/],
      ["{{.constructor}}", /there is no field "constructor"/],
      ["{{$y}}", /there is no variable \$y/],
      ["{{range $e := .list}}{{end}}{{$e}}", /there is no variable \$e/],
      ['{{printf "%s" .name}}', /the function "printf" is not known here/],
      ["{{toString .name}}", /the function "toString" is not known here/],
      ['{{template "x"}}', /the function "template" is not known here/],
      ["{{$x := .name}}{{$x = .port}}", /this is not known here/],
      ["a {{-.name}}", /this is not known here/],
      ["{{}}", /a value is missing/],
      ["{{.name .port}}", /only functions take arguments/],
      ["{{(.name}}", /a parenthesis has no end/],
      ["{{.name)}}", /unexpected \)/],
      ["{{.list}}", /a list or an object cannot be printed/],
      ["{{range .name}}{{end}}", /range takes lists alone/],
      ["{{len .on}}", /len takes texts and lists alone/],
      ["{{1.5}}", /this is not known here/],
      [`{{${"(".repeat(100_000)}}}`, /more than 100 blocks or parentheses/],
      ["{{if .on}}".repeat(100_000), /more than 100 blocks or parentheses/],
      [`{{if .off}}${"{{else if .off}}".repeat(100_000)}{{end}}`, /more than 100 blocks or parentheses/],
    ];
    for (const [template, why] of cases) {
      const result = filled(template);
      const shown = template.slice(0, 80);
      assert.ok(typeof result === "object", `${shown}: ${JSON.stringify(result)}`);
      assert.match(result.problem, why, shown);
      assert.ok(result.problem.startsWith("T: "));
    }
  });
});
