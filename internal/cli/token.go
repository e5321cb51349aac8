package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hearthws/hearth/internal/app"
)

const tokenLong = `Create and inspect tokens (JSON Web Tokens) for servers with --auth jwt, in development, and
grants for single rooms. The commands take options of hearth serve (jwt-…, grant-…), its
variables and its file.`

const tokenExamples = `  export HEARTH_JWT_SECRET_FILE=/etc/hearth/jwt-secret
  hearth token create --user ada --room lobby --lifetime 8h
  hearth token create --user ada --claim team=red --metadata '{"name":"Ada"}'
  hearth token create --user ada --private-key key.pem --key-id 2026
  hearth token inspect eyJhbGciOiJIUzI1NiJ9.…
  hearth token inspect - <token.txt
  hearth token grant --room order:7 --grant-secret-file /etc/hearth/grant-secret`

// maxTokenInput bounds what hearth token inspect reads.
const maxTokenInput = 64 << 10

// inspectTimeout is how long hearth token inspect waits for a key set.
const inspectTimeout = 10 * time.Second

func newToken(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Create and inspect tokens, for development", Long: tokenLong, Example: tokenExamples,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenCreate(environ), newTokenInspect(environ), newTokenGrant(environ))
	return cmd
}

func newTokenCreate(environ []string) *cobra.Command {
	var options optionFlags
	var spec app.TokenSpec
	cmd := &cobra.Command{
		Use: "create", Short: "Print a new token", DisableFlagsInUseLine: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if spec.User == "" {
				return usageError{errors.New("which user? Set --user, as in --user ada")}
			}
			c, err := app.LoadTokens(options.sources(cmd, environ))
			if err != nil {
				return err
			}
			token, err := app.CreateToken(c, spec)
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&spec.User, "user", "", "")
	flags.StringArrayVar(&spec.Rooms, "room", nil, "")
	flags.StringVar(&spec.Metadata, "metadata", "", "")
	flags.StringArrayVar(&spec.Claims, "claim", nil, "")
	flags.DurationVar(&spec.Lifetime, "lifetime", time.Hour, "")
	flags.StringVar(&spec.PrivateKey, "private-key", "", "")
	flags.StringVar(&spec.KeyID, "key-id", "", "")
	options.add(cmd, app.TokenOptions())
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { io.WriteString(cmd.OutOrStdout(), tokenCreateHelp()) })
	return cmd
}

func tokenCreateHelp() string {
	var b strings.Builder
	b.WriteString("Print a new token.\n\nUsage:\n  hearth token create --user id [options]\n\nOptions:\n")
	writeOption(&b, "--user id", "the user id", "")
	writeOption(&b, "--room name", "a room that the client joins; may be repeated", "")
	writeOption(&b, "--metadata json", "data about the user", "")
	writeOption(&b, "--claim name=value", "another claim; the value is JSON, or else a text; may be repeated", "")
	writeOption(&b, "--lifetime duration", "how long the token is valid", "1h")
	writeOption(&b, "--private-key file", "sign with this key (PEM) instead of jwt-secret", "")
	writeOption(&b, "--key-id text", "the id of the key, for key sets", "")
	writeTokenOptions(&b)
	return b.String()
}

func writeTokenOptions(b *strings.Builder) {
	writeOptions(b, app.TokenOptions())
	b.WriteString("\nConfiguration:\n")
	writeOption(b, "--config file", "YAML file with options of hearth serve", "")
	writeOption(b, "-h, --help", "show this help", "")
}

func newTokenInspect(environ []string) *cobra.Command {
	var options optionFlags
	cmd := &cobra.Command{
		Use: "inspect", Short: "Print a token, and whether a server would accept it", DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("which token? Give one as the argument, or - to read it from standard input")}
			}
			c, err := app.LoadTokens(options.sources(cmd, environ))
			if err != nil {
				return err
			}
			token := args[0]
			if token == "-" {
				text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxTokenInput))
				if err != nil {
					return fmt.Errorf("read the token: %w", err)
				}
				token = string(text)
			}
			ctx, cancel := context.WithTimeout(context.Background(), inspectTimeout)
			defer cancel()
			return app.InspectToken(ctx, cmd.OutOrStdout(), c, strings.TrimSpace(token))
		},
	}
	options.add(cmd, app.TokenOptions())
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		var b strings.Builder
		b.WriteString("Print the header and the claims of a token, and whether a server with these options would\n" +
			"accept it. Exit code 1 if not.\n\nUsage:\n  hearth token inspect TOKEN|- [options]\n")
		writeTokenOptions(&b)
		io.WriteString(cmd.OutOrStdout(), b.String())
	})
	return cmd
}

func newTokenGrant(environ []string) *cobra.Command {
	var options optionFlags
	var room, user string
	var lifetime time.Duration
	cmd := &cobra.Command{
		Use: "grant", Short: "Print a new grant, which allows a client to join one room", DisableFlagsInUseLine: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if room == "" {
				return usageError{errors.New("which room? Set --room, as in --room lobby")}
			}
			grant, err := app.CreateGrant(options.sources(cmd, environ), room, user, lifetime)
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), grant)
			return err
		},
	}
	cmd.Flags().StringVar(&room, "room", "", "")
	cmd.Flags().StringVar(&user, "user", "", "")
	cmd.Flags().DurationVar(&lifetime, "lifetime", 5*time.Minute, "")
	options.add(cmd, app.GrantOptions())
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		var b strings.Builder
		b.WriteString("Print a new grant, which allows a client to join one room.\n\nUsage:\n  hearth token grant --room name [options]\n\nOptions:\n")
		writeOption(&b, "--room name", "the room", "")
		writeOption(&b, "--user id", "only for this user", "")
		writeOption(&b, "--lifetime duration", "how long the grant is valid, 1s to 1h", "5m")
		writeOptions(&b, app.GrantOptions())
		b.WriteString("\nConfiguration:\n")
		writeOption(&b, "--config file", "YAML file with options of hearth serve", "")
		writeOption(&b, "-h, --help", "show this help", "")
		io.WriteString(cmd.OutOrStdout(), b.String())
	})
	return cmd
}
