// Prints the names and types of the fields of Consul's Go client, for test/golden/api-shapes.json:
//   go mod init shapes && go get github.com/hashicorp/consul/api@v1.32.1 && go run api-shapes.go
package main

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

var shapes = map[string]map[string]string{}

func nameOf(t reflect.Type) string {
	switch t {
	case reflect.TypeOf(time.Duration(0)):
		return "duration"
	case reflect.TypeOf(time.Time{}):
		return "time"
	case reflect.TypeOf(api.ReadableDuration(0)):
		return "readable"
	}
	switch t.Kind() {
	case reflect.Ptr:
		return "*" + nameOf(t.Elem())
	case reflect.Slice:
		return "[]" + nameOf(t.Elem())
	case reflect.Map:
		return "map:" + nameOf(t.Elem())
	case reflect.Interface:
		return "any"
	case reflect.Struct:
		describe(t)
		return t.Name()
	}
	return t.Kind().String()
}

func describe(t reflect.Type) {
	if _, ok := shapes[t.Name()]; ok {
		return
	}
	fields := map[string]string{}
	shapes[t.Name()] = fields
	for i := 0; i < t.NumField(); i++ {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !field.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = field.Name
		}
		fields[name] = nameOf(field.Type)
		if strings.Contains(options, "omitempty") {
			fields[name] += "?"
		}
	}
}

func main() {
	for _, value := range []any{
		api.AgentServiceRegistration{}, api.CatalogRegistration{}, api.ServiceConfigEntry{}, api.ProxyConfigEntry{},
		api.ServiceRouterConfigEntry{}, api.ServiceSplitterConfigEntry{}, api.ServiceResolverConfigEntry{},
		api.IngressGatewayConfigEntry{}, api.TerminatingGatewayConfigEntry{}, api.APIGatewayConfigEntry{},
		api.HTTPRouteConfigEntry{}, api.TCPRouteConfigEntry{}, api.InlineCertificateConfigEntry{},
		api.FileSystemCertificateConfigEntry{}, api.JWTProviderConfigEntry{}, api.MeshConfigEntry{},
		api.ExportedServicesConfigEntry{}, api.ServiceIntentionsConfigEntry{}, api.SamenessGroupConfigEntry{},
	} {
		describe(reflect.TypeOf(value))
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", " ")
	out.Encode(shapes)
}
