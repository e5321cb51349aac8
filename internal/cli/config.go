package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hearthws/hearth/internal/app"
)

// newConfig returns the command hearth config with its commands. They take the options of hearth
// serve.
func newConfig(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check and print the configuration of a server",
		Long: `Check and print the configuration of a server. The commands take the options, variables
and file of hearth serve (hearth serve --help), and start nothing.`,
		Example: `  hearth config check --config hearth.yaml
  hearth config print >hearth.yaml               every option, to start a file with
  hearth config schema >hearth.schema.json       for editors`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		configCommand(environ, "check", "Report mistakes; exit code 2 if there are any", runConfigCheck),
		configCommand(environ, "print", "Print the value and the source of each option", runConfigPrint),
		&cobra.Command{
			Use: "schema", Short: "Print the JSON Schema of the file", DisableFlagsInUseLine: true, Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				schema, err := app.Schema()
				if err == nil {
					_, err = cmd.OutOrStdout().Write(schema)
				}
				return err
			},
		},
	)
	return cmd
}

// configCommand returns a command that takes the options of hearth serve.
func configCommand(environ []string, name, short string, run func(cmd *cobra.Command, src app.Sources) error) *cobra.Command {
	var options optionFlags
	cmd := &cobra.Command{
		Use: name + " [options of hearth serve]", Short: short, DisableFlagsInUseLine: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, remark := range app.MisspelledVariables(environ) {
				fmt.Fprintln(cmd.ErrOrStderr(), "hearth:", remark)
			}
			return run(cmd, options.sources(cmd, environ))
		},
	}
	options.add(cmd, app.Options())
	return cmd
}

func runConfigCheck(cmd *cobra.Command, src app.Sources) error {
	if _, _, err := app.Load(src); err != nil {
		return err
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), "ok")
	return err
}

func runConfigPrint(cmd *cobra.Command, src app.Sources) error {
	_, settings, err := app.Load(src)
	if err != nil {
		return err
	}
	_, err = io.WriteString(cmd.OutOrStdout(), app.WriteYAML(settings))
	return err
}
