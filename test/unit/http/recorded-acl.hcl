# The tokens of the recordings under test/golden/http. There each is called by its rules, which is its secret here.
default_policy = "deny"

token "11111111-0000-0000-0000-000000000001" {
  secret = "peering read"
  rules {
    peering = "read"
  }
}

token "11111111-0000-0000-0000-000000000002" {
  secret = "peering write"
  rules {
    peering = "write"
  }
}

token "11111111-0000-0000-0000-000000000003" {
  secret = "operator write"
  rules {
    operator = "write"
  }
}

token "11111111-0000-0000-0000-000000000004" {
  secret = "service read"
  rules {
    service_prefix "" { policy = "read" }
  }
}
