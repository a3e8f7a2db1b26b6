package manifest

import (
	"strings"
	"testing"
)

const good = `
process_guid: web
domain: muster
root_fs: docker:///library/nginx#latest
instances: 2
action:
  run_action: {path: nginx, args: ["-g", daemon off;], user: root, env: [{name: A, value: "1"}]}
metric_tags: {source_id: {static: web}}
routes:
  cf-router: [{hostnames: [web.localhost], port: 80}]
`

func TestReadsYAMLAndJSON(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"one YAML document":       good,
		"empty ones are skipped":  "---\n" + good + "---\n",
		"several YAML documents":  good + "---" + good,
		"JSON":                    `{"process_guid":"web","instances":2,"routes":{"cf-router":[{"hostnames":["web.localhost"],"port":80}]}}`,
		"JSON, wire names":        `{"processGuid":"web","instances":2,"routes":{"cf-router":[{"hostnames":["web.localhost"],"port":80}]}}`,
		"JSON one after another":  `{"process_guid":"web","instances":2,"routes":{"cf-router":[{"hostnames":["web.localhost"],"port":80}]}} {"process_guid":"b"}`,
		"YAML that starts with {": "{process_guid: web, instances: 2, routes: {cf-router: [{hostnames: [web.localhost], port: 80}]}}",
	} {
		list, err := Read("f", strings.NewReader(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if two := len(list) == 2; two != (strings.HasPrefix(name, "several") || strings.Contains(name, "another")) {
			t.Errorf("%s: %d documents", name, len(list))
		}
		d := list[0]
		if d.GetProcessGuid() != "web" || d.GetInstances() != 2 {
			t.Errorf("%s: got %v", name, d)
		}
		if got, want := string(d.GetRoutes().GetRoutes()["cf-router"]), `[{"hostnames":["web.localhost"],"port":80}]`; got != want {
			t.Errorf("%s: route %s, want %s", name, got, want)
		}
	}
}

func TestNothingIsIgnored(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"unknown key":          {"process_guid: a\nmemory: 3", "f: key memory is unknown; known are action,"},
		"unknown key below":    {"action: {run_action: {path: a, arg: [b]}}", "key action.run_action.arg is unknown; known are args, dir,"},
		"unknown key in list":  {"egress_rules: [{protocol: tcp}, {proto: tcp}]", "key egress_rules[1].proto is unknown"},
		"unknown key in map":   {"metric_tags: {a: {statik: b}}", "key metric_tags.a.statik is unknown; known are dynamic, static"},
		"key given twice":      {"process_guid: a\nprocess_guid: b", `"process_guid" already`},
		"number for a text":    {"process_guid: 12", "key process_guid: want a text, got the number 12: put it in quotes"},
		"text for a number":    {"instances: many", `key instances: want a number, got the text "many"`},
		"number out of range":  {"instances: 3000000000", "3000000000"},
		"text for a list":      {"ports: 80", "key ports: want a list, got the number 80"},
		"routes are a list":    {"routes: [a]", "key routes: want an object of router groups such as cf-router, got a list"},
		"not an object":        {"- a", "want an object with the keys of a DesiredLRP, got a list"},
		"nothing":              {"\n# only a comment\n", "f: no document in it"},
		"not YAML":             {"a: [", "f: "},
		"the second is broken": {good + "---\nfoo: 1", "f, document 2: key foo is unknown"},
	} {
		list, err := Read("f", strings.NewReader(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want it to say %q", name, err, tc.want)
		}
		if len(list) > 0 {
			t.Errorf("%s: returned %d documents beside the error", name, len(list))
		}
	}
}
