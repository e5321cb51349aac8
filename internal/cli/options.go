package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hearthws/hearth/internal/app"
)

// optionFlags are the flags of a command for options, and --config.
type optionFlags struct{ config string }

// add adds the flags for options to a command.
func (f *optionFlags) add(cmd *cobra.Command, options []app.Option) {
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&f.config, "config", "", "")
	for _, o := range options {
		flag := cmd.Flags().VarPF(&optionFlag{option: o}, o.Name, "", o.Usage)
		if o.Switch {
			flag.NoOptDefVal = "true"
		}
	}
}

// sources returns what the user has given: flags, variables and a file.
func (f *optionFlags) sources(cmd *cobra.Command, environ []string) app.Sources {
	src := app.Sources{Flags: map[string][]string{}, Environ: environ}
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if o, ok := flag.Value.(*optionFlag); ok {
			src.Flags[flag.Name] = o.values
		}
	})
	if cmd.Flags().Changed("config") {
		src.File = &f.config
	}
	return src
}

// An optionFlag collects the values of an option without parsing them. app.Load parses the values
// of all sources in the same way.
type optionFlag struct {
	option app.Option
	values []string
}

func (f *optionFlag) String() string     { return strings.Join(f.values, ",") }
func (f *optionFlag) Set(s string) error { f.values = append(f.values, s); return nil }
func (f *optionFlag) Type() string       { return f.option.Hint }

// writeOptions writes options in groups, with their defaults.
func writeOptions(b *strings.Builder, options []app.Option) {
	group := ""
	for _, o := range options {
		if o.Group != group {
			group = o.Group
			fmt.Fprintf(b, "\n%s:\n", group)
		}
		flag := "--" + o.Name
		if !o.Switch {
			flag += " " + o.Hint
		}
		writeOption(b, flag, o.Usage, o.Default)
	}
}

const (
	usageColumn = 34
	helpWidth   = 92
)

// writeOption writes an option and its usage in two columns. A flag that is too long for its column
// gets a line of its own.
func writeOption(b *strings.Builder, flag, usage, def string) {
	words := strings.Fields(usage)
	if def != "" && def != "false" {
		words = append(words, "(default "+def+")") // one word, so that it is not wrapped
	}
	line := fmt.Sprintf("  %-*s", usageColumn-2, flag)
	if !strings.HasSuffix(line, " ") {
		fmt.Fprintln(b, strings.TrimRight(line, " "))
		line = strings.Repeat(" ", usageColumn)
	}
	start := len(line)
	for _, word := range words {
		if len(line)+len(word) > helpWidth && len(line) > start {
			fmt.Fprintln(b, strings.TrimRight(line, " "))
			line = strings.Repeat(" ", usageColumn)
			start = len(line)
		}
		line += word + " "
	}
	fmt.Fprintln(b, strings.TrimRight(line, " "))
}
