package main

// The common part of programs that drive a client written in Go: it is copied beside each of them.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// Prints the line of a check, which has passed where there is no problem.
func report(name string, problem string) {
	if problem == "" {
		fmt.Printf("ok %s\n", name)
	} else {
		fmt.Printf("not ok %s: %s\n", name, strings.ReplaceAll(problem, "\n", " "))
	}
}

func put(path string, body any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPut, "http://"+os.Getenv("CONSUL_HTTP_ADDR")+path, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, answer.Status)
	}
	return nil
}
