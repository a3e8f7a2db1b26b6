package stack

import (
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"
)

// reveal puts secrets into a configuration that was written from a Config type, which hides them. The keys name
// fields, such as consul.token, the values are as a file has them. The file that it goes to is for root alone.
func reveal(config []byte, secrets map[string]any) ([]byte, error) {
	var all map[string]any
	if err := yaml.Unmarshal(config, &all); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	for path, secret := range secrets {
		at, keys := all, strings.Split(path, ".")
		for _, key := range keys[:len(keys)-1] {
			inner, ok := at[key].(map[string]any)
			if !ok {
				return nil, fmt.Errorf("write configuration: there is no %s for %s", key, path)
			}
			at = inner
		}
		at[keys[len(keys)-1]] = secret
	}
	text, err := yaml.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return text, nil
}
