package app_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const deploy = "../../deploy/"

// An alert is one rule of deploy/prometheus.
type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alerts(t *testing.T) []alert {
	t.Helper()
	b, err := os.ReadFile(deploy + "prometheus/hearth.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) < 10 {
		t.Fatalf("%d groups", len(file.Groups))
	}
	return file.Groups[0].Rules
}

// dashboardQueries returns the queries of the dashboard by the titles of their panels.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(deploy + "grafana/hearth.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	queries, ids, places := map[string]string{}, map[int]bool{}, map[[2]int]bool{}
	for _, p := range dashboard.Panels {
		place := [2]int{p.GridPos.X, p.GridPos.Y}
		if ids[p.ID] || places[place] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q has the id or the place of another one", p.Title)
		}
		ids[p.ID], places[place] = true, true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q has no query", p.Title)
		}
		for i, target := range p.Targets {
			queries[fmt.Sprintf("panel %q, query %d", p.Title, i)] = strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
		}
	}
	return queries
}

var (
	metricName = regexp.MustCompile(`\b(?:hearth|process|go)_[a-z_]+\b`)
	selector   = regexp.MustCompile(`\b(hearth_[a-z_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`\b(cause|result|state)(=~|!=|=)"([^"]*)"`)
)

// TestMetricsOfDeployExist checks each metric and label in the alerts and the dashboard
// against the metrics of a running server.
func TestMetricsOfDeployExist(t *testing.T) {
	t.Parallel()
	s := serveAdmin(t, map[string]string{})
	s.dialFor(t, "ada")
	code, body := fetch(t, s.admin+"metrics")
	if code != http.StatusOK {
		t.Fatal(code)
	}
	names, series := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(body) {
		if line[0] == '#' {
			continue
		}
		full := line[:strings.LastIndexByte(line, ' ')]
		name, _, _ := strings.Cut(full, "{")
		names[name], series[full] = true, true
	}
	queries := dashboardQueries(t)
	for _, a := range alerts(t) {
		queries["alert "+a.Alert] = a.Expr
	}
	used := map[string]bool{}
	for _, where := range slices.Sorted(maps.Keys(queries)) {
		query := queries[where]
		for _, name := range metricName.FindAllString(query, -1) {
			used[name] = true
			if !names[name] {
				t.Errorf("%s: there is no metric %s", where, name)
			}
		}
		for _, m := range selector.FindAllStringSubmatch(query, -1) {
			for _, label := range matcher.FindAllStringSubmatch(m[2], -1) {
				for _, value := range strings.Split(label[3], "|") {
					if want := fmt.Sprintf("%s{%s=%q}", m[1], label[1], value); !series[want] {
						t.Errorf("%s: there is no %s", where, want)
					}
				}
			}
		}
	}
	if len(used) < 30 {
		t.Errorf("only %d metrics are used", len(used))
	}
}

// TestMetricsAlertsAreExplained checks that docs/operations.md has a row for each alert, and no
// other.
func TestMetricsAlertsAreExplained(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var explained, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(Hearth[A-Za-z]+)` \\|").FindAllStringSubmatch(string(b), -1) {
		explained = append(explained, m[1])
	}
	for _, a := range alerts(t) {
		want = append(want, a.Alert)
		if a.Annotations["summary"] == "" || a.Labels["severity"] != "page" && a.Labels["severity"] != "ticket" {
			t.Errorf("%s needs a summary, and the severity page or ticket", a.Alert)
		}
	}
	if !slices.Equal(explained, want) {
		t.Errorf("docs/operations.md explains the alerts %v, want %v, in this order", explained, want)
	}
}

// TestMetricsRules runs promtool (Debian: prometheus): the tests of the alerts, and a check that
// the queries of the dashboard are valid.
func TestMetricsRules(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool (Debian: prometheus)")
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", deploy+"prometheus/hearth.rules.test.yml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	var rules []map[string]string
	for where, query := range dashboardQueries(t) {
		rules = append(rules, map[string]string{"alert": where, "expr": strings.ReplaceAll(query, "$instance", ".*")})
	}
	b, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestUnit checks the unit for systemd: its syntax, and that it is hardened.
func TestUnit(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze (Debian: systemd)")
	}
	b, err := os.ReadFile(deploy + "systemd/hearth.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "hearth.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(b), "/usr/local/bin/hearth", "/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"verify", unit}, {"security", "--no-pager", "--offline=true", "--threshold=20", unit}} {
		if out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput(); err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}
