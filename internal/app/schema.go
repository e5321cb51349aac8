package app

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Schema returns the JSON Schema (draft 2020-12) of a configuration file, from the same Options as
// Load. Editors use it to complete names and to mark mistakes. Load checks more than it: paths,
// URLs, and options that do not fit together.
func Schema() ([]byte, error) {
	properties := map[string]any{}
	for _, o := range Options() {
		properties[o.Name] = o.property()
	}
	b, err := json.MarshalIndent(map[string]any{
		"$schema":              "https://json-schema.org/draft/2020-12/schema",
		"title":                "Configuration of hearth serve",
		"type":                 "object",
		"additionalProperties": false,
		"properties":           properties,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the schema: %w", err)
	}
	return append(b, '\n'), nil
}

// property returns the schema of an option.
func (o Option) property() map[string]any {
	p := map[string]any{"description": o.Usage}
	if o.schema == nil {
		p["type"] = "string"
	}
	for name, value := range o.schema {
		p[name] = value
	}
	if o.Secret {
		p["writeOnly"] = true
	}
	switch n, err := strconv.Atoi(o.Default); {
	case o.List:
		p["default"] = splitList(o.Default)
	case o.Switch:
		p["default"] = o.Default == "true"
	case err == nil && p["type"] == "integer":
		p["default"] = n
	default:
		p["default"] = o.Default
	}
	return p
}

// durationSchema describes a duration. zero allows 0 as well.
func durationSchema(zero bool) map[string]any {
	form := map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`}
	if !zero {
		return form
	}
	return map[string]any{"anyOf": []any{form, map[string]any{"enum": []any{0, "0"}}}}
}

// sizeSchema describes a number of bytes.
func sizeSchema(least int) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "integer", "minimum": least, "maximum": maxNumber},
		map[string]any{"type": "string", "pattern": "^[0-9]+ *(KiB|MiB|GiB|kB|KB|MB|GB|B)?$"},
	}}
}

// listSchema describes several values: a list, or one text with commas between them.
func listSchema() map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "array", "items": map[string]any{"type": "string"}},
		map[string]any{"type": "string"},
	}}
}
