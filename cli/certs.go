package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"muster/internal/identity"
)

func (a *app) certsCommand() *cobra.Command {
	var cellIDs []string
	c := &cobra.Command{
		Use:   "certs DIR",
		Short: "make certificates: a CA and one for every role",
		Long: `Makes a development CA in DIR, unless it is there, and new certificates for every
role. A rep's certificate names its cell: give --cell for each. Running daemons
take up new certificates within a second of the next connection.`,
		Example: "  muster certs /etc/muster/certs --cell rack-1 --cell rack-2",
		Args:    exactArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			ids, err := allIDs(cellIDs)
			if err != nil {
				return err
			}
			ca, err := identity.OpenCA(args[0])
			if err != nil {
				return fmt.Errorf("open the CA in %s: %w", args[0], err)
			}
			g := grid{head: []string{"FOR", "URI", "CERTIFICATE", "KEY"}}
			type view struct {
				Role string `json:"role"`
				Cell string `json:"cell_id,omitempty"`
				URI  string `json:"uri"`
				identity.Files
			}
			views := []view{}
			for _, id := range ids {
				f, err := ca.Issue(id)
				if err != nil {
					return fmt.Errorf("make a certificate for %s: %w", id, err)
				}
				g.add(id.String(), id.URI().String(), f.Cert, f.Key)
				views = append(views, view{string(id.Role), id.Cell, id.URI().String(), f})
			}
			if a.json {
				return printJSON(a.Out, views)
			}
			g.print(a.Out)
			return nil
		},
	}
	c.Flags().StringArrayVar(&cellIDs, "cell", nil, "`ID` of a cell; can be given several times")
	return c
}

// allIDs lists every role, and a rep for each cell.
func allIDs(cellIDs []string) ([]identity.ID, error) {
	var ids []identity.ID
	for _, r := range identity.Roles {
		if r != identity.Rep {
			ids = append(ids, identity.ID{Role: r})
		}
	}
	for _, c := range cellIDs {
		if !validCellID(c) {
			return nil, usagef("--cell %q: want letters, digits, -, _ and . only", c)
		}
		ids = append(ids, identity.ID{Role: identity.Rep, Cell: c})
	}
	return ids, nil
}

func validCellID(id string) bool {
	for _, r := range id {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		default:
			return false
		}
	}
	return id != "" && id != "." && id != ".."
}
