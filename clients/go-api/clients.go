// Package clients pins what is tested: the tests of the imported package are run.
package clients

import _ "github.com/hashicorp/consul/api"
