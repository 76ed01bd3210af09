// Reads patterns and subjects, and prints them with what Go's regexp, which Consul uses, says of them, for test/golden/regexp.jsonl:
//
//	go run tools/record-regexp.go < test/golden/regexp.jsonl
//
// A new case needs no more than {"pattern":"…","subject":"…"}.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"regexp"
)

type record struct {
	Pattern string   `json:"pattern"`
	Subject string   `json:"subject"`
	Error   string   `json:"error,omitempty"`
	Groups  []string `json:"groups,omitempty"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for lines.Scan() {
		var next record
		if err := json.Unmarshal(lines.Bytes(), &next); err != nil {
			panic(err)
		}
		next.Error, next.Groups = "", nil
		if expression, err := regexp.Compile(next.Pattern); err != nil {
			next.Error = err.Error()
		} else {
			next.Groups = expression.FindStringSubmatch(next.Subject)
		}
		if err := out.Encode(next); err != nil {
			panic(err)
		}
	}
	if err := lines.Err(); err != nil {
		panic(err)
	}
}
