package consul_test

import "github.com/hashicorp/consul/api"

// dying is a session that nobody renews.
var dying = api.SessionEntry{TTL: ttl.String(), Behavior: api.SessionBehaviorDelete}

func pair(key, session string) *api.KVPair {
	return &api.KVPair{Key: key, Value: []byte("old"), Session: session}
}

func unfed(name string) *api.AgentServiceRegistration {
	return &api.AgentServiceRegistration{ID: "unfed", Name: name, Address: "10.0.0.3", Port: 80,
		Check: &api.AgentServiceCheck{TTL: ttl.String(), Status: api.HealthPassing}}
}
