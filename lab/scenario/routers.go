package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/egret-router/egret/lab"
)

func (s *script) routerCommands() map[string]command {
	return map[string]command{"router": s.router, "router-start": s.routerStart}
}

const routerUsage = "ROUTER routes|filtered|state|command|announce|stop|start|kill|freeze|thaw ..."

func (s *script) router(_ context.Context, args []string) (string, error) {
	if err := want(args, 2, -1, routerUsage); err != nil {
		return "", err
	}
	r, ok := s.routers[args[0]]
	if !ok {
		return "", usageError(fmt.Sprintf("no router %q", args[0]))
	}
	rest := args[2:]
	switch args[1] {
	case "routes", "filtered":
		return printRoutes(r, args[1], rest)
	case "state":
		if len(rest) != 1 {
			return "", usageError("ROUTER state PEER")
		}
		peer, err := netip.ParseAddr(rest[0])
		if err != nil {
			return "", usageError(err.Error())
		}
		state, err := r.BGPState(peer)
		return state + "\n", err
	case "command":
		return r.Command(rest...)
	case "announce":
		prefixes, err := parsePrefixes(rest)
		if err != nil {
			return "", err
		}
		return "", r.Announce(prefixes...)
	}
	acts := map[string]func() error{
		"stop": r.Stop, "start": r.Start, "freeze": r.Freeze, "thaw": r.Thaw,
		"kill": func() error { r.Kill9(); return nil },
	}
	act, ok := acts[args[1]]
	if !ok || len(rest) > 0 {
		return "", usageError(routerUsage)
	}
	return "", act()
}

// printRoutes prints one sorted line per prefix, of one family or of both.
func printRoutes(r *lab.Router, what string, families []string) (string, error) {
	var lines []string
	for _, f := range lab.Families() {
		if len(families) > 0 && !slices.Contains(families, string(f)) {
			continue
		}
		if what == "filtered" {
			prefixes, err := r.Filtered(f)
			if err != nil {
				return "", err
			}
			for _, p := range prefixes {
				lines = append(lines, p.String()+"\n")
			}
			continue
		}
		routes, err := r.Routes(f)
		if err != nil {
			return "", err
		}
		for prefix, hops := range routes {
			slices.SortFunc(hops, netip.Addr.Compare)
			lines = append(lines, fmt.Sprintf("%s %s\n", prefix, strings.Trim(fmt.Sprint(hops), "[]")))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, ""), nil
}

func (s *script) egretCommands() map[string]command {
	return map[string]command{
		"egret-run": s.egretRun, "egret-config": s.egretConfig, "egret-reload": s.egretReload,
		"egret-stop": s.egretStop, "egret-kill": s.egretKill, "egret-log": s.egretLog, "egret": s.egretCommand,
	}
}

func (s *script) egretRun(_ context.Context, args []string) (string, error) {
	if err := want(args, 1, -1, "FILE [ARGS...]"); err != nil {
		return "", err
	}
	o, err := s.topology()
	if err != nil {
		return "", err
	}
	if s.opts.Egret == "" {
		return "", usageError("needs Options.Egret, the path of the program")
	}
	text, err := readFile(s.mkAbs(args[0]))
	if err != nil {
		return "", err
	}
	s.egret, err = o.StartEgret(s.opts.Egret, text, args[1:]...)
	return "", err
}

func (s *script) egretConfig(_ context.Context, args []string) (string, error) {
	if err := want(args, 1, 1, "FILE"); err != nil {
		return "", err
	}
	o, err := s.topology()
	if err != nil {
		return "", err
	}
	text, err := readFile(s.mkAbs(args[0]))
	if err != nil {
		return "", err
	}
	return "", o.WriteConfig(text)
}

var errNotStarted = errors.New("egret was not started")

func (s *script) egretReload(context.Context, []string) (string, error) {
	if s.egret == nil {
		return "", errNotStarted
	}
	return "", s.egret.Signal(syscall.SIGHUP)
}

func (s *script) egretStop(context.Context, []string) (string, error) {
	if s.egret == nil {
		return "", errNotStarted
	}
	return "", s.egret.Stop()
}

func (s *script) egretKill(context.Context, []string) (string, error) {
	if s.egret == nil {
		return "", errNotStarted
	}
	s.egret.Kill9()
	return "", nil
}

func (s *script) egretLog(context.Context, []string) (string, error) {
	if s.egret == nil {
		return "", errNotStarted
	}
	return s.egret.Log(), nil
}

func (s *script) egretCommand(_ context.Context, args []string) (string, error) {
	o, err := s.topology()
	if err != nil {
		return "", err
	}
	return o.Egret(args...)
}
