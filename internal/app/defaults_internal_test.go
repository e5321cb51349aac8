package app

import (
	"log/slog"
	"reflect"
	"testing"

	"github.com/hearthws/hearth"
)

// TestDefaultsAreTheLibrarys checks that the default of each option is that of the field of
// hearth.Config that it sets. Only Drain differs: the library cannot know how long its program may
// take to end.
func TestDefaultsAreTheLibrarys(t *testing.T) {
	t.Parallel()
	cfg, _, err := Load(Sources{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	ours := reflect.ValueOf(hearthConfig[credentials, *visitor](cfg, log, log).WithDefaults())
	library := hearth.Config[credentials, *visitor]{}.WithDefaults()
	library.Timeouts.Drain = cfg.Drain
	theirs := reflect.ValueOf(library)
	compared := 0
	var compare func(name string, a, b reflect.Value)
	compare = func(name string, a, b reflect.Value) {
		switch a.Kind() {
		case reflect.Func, reflect.Interface, reflect.Pointer: // callbacks, the broker, the logger
		case reflect.Struct:
			for i := range a.NumField() {
				compare(name+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
			}
		default:
			compared++
			if !reflect.DeepEqual(a.Interface(), b.Interface()) {
				t.Errorf("%s: hearth serve has %v, the library %v", name, a, b)
			}
		}
	}
	compare("Config", ours, theirs)
	if compared < 20 {
		t.Errorf("only %d fields", compared)
	}
}
