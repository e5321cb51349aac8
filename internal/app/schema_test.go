package app_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/hearthws/hearth/internal/app"
)

// TestSchema checks files with the schema and with Load.
func TestSchema(t *testing.T) {
	t.Parallel()
	text, err := app.Schema()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("hearth.json", parsed); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("hearth.json")
	if err != nil {
		t.Fatal(err)
	}
	_, settings, err := app.Load(app.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, text   string
		schema, load bool // whether each accepts it
	}{
		{"all defaults", app.WriteYAML(settings), true, true},
		{"values", "loops: 4\nmax-payload: 1MiB\nauth-timeout: 1m30s\ncompression: true\ndefault-rooms: [a]\nlog-level: debug\n", true, true},
		{"other forms", "max-payload: 65536\nidle-timeout: 0\ndefault-rooms: a,b\nauth: jwt\njwt-secret: 0123456789abcdef0123456789abcdef\n", true, true},
		{"unknown option", "lops: 4\n", false, false},
		{"choice", "auth: none\n", false, false},
		{"number", "loops: 0\n", false, false},
		{"number as a text", "loops: many\n", false, false},
		{"duration without a unit", "auth-timeout: 30\n", false, false},
		{"zero where it is not allowed", "auth-timeout: 0\n", false, false},
		{"size", "max-payload: lots\n", false, false},
		{"switch", "compression: maybe\n", false, false},
		{"nested", "listen: {host: localhost}\n", false, false},
		{"list of lists", "default-rooms: [[a]]\n", false, false},
		{"only Load checks addresses", "listen: localhost\n", true, false},
		{"only Load checks combinations", "auth: jwt\n", true, false},
	} {
		var document any
		if err := yaml.Unmarshal([]byte(tt.text), &document); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(document) // the types of JSON
		if err != nil {
			t.Fatal(err)
		}
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(instance); (err == nil) != tt.schema {
			t.Errorf("%s: the schema: %v", tt.name, err)
		}
		if _, _, err := app.Load(app.Sources{File: new(writeFile(t, "hearth.yaml", tt.text))}); (err == nil) != tt.load {
			t.Errorf("%s: Load: %v", tt.name, err)
		}
	}
}
