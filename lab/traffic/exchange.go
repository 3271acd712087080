package traffic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// A Connection is a long-lived TCP connection to a Server's TCP service.
type Connection struct {
	// Server is who greeted, and the client address it sees.
	Server Answer

	conn  net.Conn
	lines *bufio.Reader
}

// An ExchangeReport tells how a Connection fared. Durations are in
// milliseconds.
type ExchangeReport struct {
	Server    Answer  `json:"server"`
	Exchanges int     `json:"exchanges"`
	Broken    bool    `json:"broken"`
	Error     string  `json:"error,omitempty"`
	LongestMS float64 `json:"longest_ms"` // the longest wait for a line to come back
}

// DialExchange connects to a Server's TCP service and reads its greeting.
func DialExchange(ctx context.Context, source, server netip.AddrPort) (*Connection, error) {
	c, err := dialTCP(ctx, source, server)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	x := &Connection{conn: c, lines: bufio.NewReader(c)}
	greeting, err := x.lines.ReadString('\n')
	if err == nil {
		x.Server, err = parseAnswer(greeting)
	}
	if err != nil {
		return nil, fmt.Errorf("greeting of %s: %w", server, errors.Join(err, c.Close()))
	}
	return x, nil
}

// Exchange sends a line and waits for its echo, for at most this long.
func (x *Connection) Exchange(line string, patience time.Duration) error {
	if err := x.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(x.conn, "%s\n", line); err != nil {
		return err
	}
	echo, err := x.lines.ReadString('\n')
	if err != nil {
		return err
	}
	if got := strings.TrimSuffix(echo, "\n"); got != line {
		return fmt.Errorf("sent %q, got %q", line, got)
	}
	return nil
}

// Run exchanges a numbered line per interval until the context ends or the
// connection breaks, and closes it. An echo may take as long as patience.
func (x *Connection) Run(ctx context.Context, interval, patience time.Duration) ExchangeReport {
	defer x.conn.Close()
	report := ExchangeReport{Server: x.Server}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := 0; ; n++ {
		began := time.Now()
		if err := x.Exchange(fmt.Sprint("line ", n), patience); err != nil {
			report.Broken, report.Error = true, err.Error()
			return report
		}
		report.Exchanges++
		report.LongestMS = max(report.LongestMS, milliseconds(time.Since(began)))
		select {
		case <-ctx.Done():
			return report
		case <-tick.C:
		}
	}
}

// Close ends the connection.
func (x *Connection) Close() error { return x.conn.Close() }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
