package cli

import (
	"github.com/spf13/cobra"

	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/natsserver"
)

// natsCommand runs the NATS server of "muster up". Larger installations have their own.
func (a *app) natsCommand() *cobra.Command {
	var listen, certs string
	c := &cobra.Command{
		Use:    "nats",
		Short:  "run the NATS server of the stack on this machine",
		Args:   exactArgs(),
		Hidden: true,
		RunE: func(c *cobra.Command, _ []string) error {
			tlsConfig, err := identity.FilesOf(certs, identity.ID{Role: identity.NATS}).Server(identity.RouteEmitter, identity.Gorouter, identity.Operator)
			if err != nil {
				return err
			}
			log := daemon.NewLogger(a.Err, "nats", "info")
			log.Info("starting", "address", listen)
			if err := natsserver.Run(c.Context(), listen, tlsConfig); err != nil {
				return err
			}
			log.Info("stopped")
			return nil
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:4222", "`host:port` to listen on")
	c.Flags().StringVar(&certs, "certs", "", "`directory` made by muster certs")
	return c
}
