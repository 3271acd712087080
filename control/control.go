// Package control is the daemon's unix socket: a small HTTP server that
// answers what the loop published and takes the orders to drain, and the client
// the CLI uses.
//
//	GET  /v1/status    egress.Status
//	GET  /v1/observed  Observed: learned routes and verdicts, for `egret plan`
//	GET  /v1/bgp/...   see bgp.go
//	GET  /v1/events    see events.go
//	POST /v1/drain     see drain.go
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/egret-router/egret/bgp"
	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/drain"
	"github.com/egret-router/egret/probes"
)

// Bounds of the socket.
const (
	requestTimeout = 10 * time.Second
	// maxAnswer bounds what the client reads: a full table of learned routes in
	// JSON is below 200 MB.
	maxAnswer = 512 << 20
)

// SocketPath is the socket in a run directory.
func SocketPath(runDir string) string { return filepath.Join(runDir, "egret.sock") }

// Observed is what only the running daemon knows.
type Observed struct {
	Learned  map[string][]bgp.Route    `json:"learned"`
	Verdicts map[string]probes.Verdict `json:"verdicts"`
	Drains   map[string]drain.Record   `json:"drains,omitempty"`
}

// Source is what the server answers from; *egress.Router is the real one.
type Source interface {
	Status() *egress.Status
	Observed() *egress.State
}

// Serve answers on the socket at path until ctx ends. It replaces a socket
// that no process listens on; the directory is made when it is missing. The
// socket is for the owner and its group only.
func Serve(ctx context.Context, path string, src Source, log *slog.Logger) error {
	l, err := listen(path)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, log, src.Status(), src.Status() != nil)
	})
	mux.HandleFunc("GET /v1/observed", func(w http.ResponseWriter, _ *http.Request) {
		st := src.Observed()
		if st == nil {
			answer(w, log, nil, false)
			return
		}
		answer(w, log, Observed{Learned: st.Learned, Verdicts: st.Verdicts, Drains: st.Drains}, true)
	})
	serveBGP(mux, src, log)
	serveEvents(mux, src, log)
	serveDrain(mux, src, log)
	srv := &http.Server{Handler: mux, ReadTimeout: requestTimeout, WriteTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket %q: %w", path, err)
	}
	return nil
}

func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen on control socket %q: another process answers there", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on control socket %q: %w", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect control socket: %w", err)
	}
	return l, nil
}

func answer(w http.ResponseWriter, log *slog.Logger, v any, ready bool) {
	if !ready {
		http.Error(w, "the first round is not finished yet", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Debug("control answer not written", "err", err)
	}
}

// ErrNoDaemon means that nothing answers on the socket.
var ErrNoDaemon = errors.New("no egret daemon answers")

// Client asks a running daemon.
type Client struct {
	path string
	http http.Client
}

// NewClient makes a client for the socket at path.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: time.Minute}}
}

// Status asks for the daemon's status.
func (c *Client) Status(ctx context.Context) (*egress.Status, error) {
	out := &egress.Status{}
	return out, c.get(ctx, "/v1/status", out)
}

// Observed asks for what only the daemon knows.
func (c *Client) Observed(ctx context.Context) (*Observed, error) {
	out := &Observed{}
	return out, c.get(ctx, "/v1/observed", out)
}

// do sends one request. The caller closes the answer's body.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://egret"+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask daemon: %w", err)
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("ask %q: %w", c.path, ErrNoDaemon)
	case err != nil:
		return nil, fmt.Errorf("ask daemon: %w", err)
	}
	return resp, nil
}

func (c *Client) get(ctx context.Context, path string, out any) error {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, maxAnswer)
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(body, 4096))
		return fmt.Errorf("ask daemon for %s: %s: %s", path, resp.Status, text)
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("read answer of daemon: %w", err)
	}
	return nil
}
