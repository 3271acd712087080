package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/drain"
)

// Drainer is a Source that can also drain; *egress.Router is the real one.
//
//	POST /v1/drain    egress.DrainRequest
//	POST /v1/undrain  Undrain
//
// Both answer 204 when the order is kept over a restart, 404 for a network that is
// not there, and 409 for one that is not drained.
type Drainer interface {
	Drain(egress.DrainRequest) error
	Undrain(network string) error
}

// Undrain takes the drain of a network back, or with "" all drains.
type Undrain struct {
	Network string `json:"network,omitempty"`
}

// maxOrder bounds the body of a request.
const maxOrder = 64 << 10

func serveDrain(mux *http.ServeMux, src Source, log *slog.Logger) {
	drainer, ok := src.(Drainer)
	if !ok {
		return
	}
	mux.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, r *http.Request) {
		var q egress.DrainRequest
		carryOut(w, r, &q, log, func() error { return drainer.Drain(q) })
	})
	mux.HandleFunc("POST /v1/undrain", func(w http.ResponseWriter, r *http.Request) {
		var q Undrain
		carryOut(w, r, &q, log, func() error { return drainer.Undrain(q.Network) })
	})
}

// carryOut reads an order strictly and answers with what came of it.
func carryOut(w http.ResponseWriter, r *http.Request, order any, log *slog.Logger, do func() error) {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder))
	d.DisallowUnknownFields()
	if err := d.Decode(order); err != nil {
		http.Error(w, "read order: "+err.Error(), http.StatusBadRequest)
		return
	}
	if _, err := d.Token(); err != io.EOF {
		http.Error(w, "read order: more than one", http.StatusBadRequest)
		return
	}
	err := do()
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, egress.ErrNoSuchNetwork):
		code = http.StatusNotFound
	case errors.Is(err, egress.ErrNotDrained), errors.Is(err, egress.ErrWholeGateway):
		code = http.StatusConflict
	case errors.Is(err, drain.ErrBadOrder):
		code = http.StatusBadRequest
	default:
		log.Error("an order was not carried out", "order", r.URL.Path, "err", err)
	}
	http.Error(w, err.Error(), code)
}

// Drain asks the daemon to drain.
func (c *Client) Drain(ctx context.Context, q egress.DrainRequest) error {
	return c.post(ctx, "/v1/drain", q)
}

// Undrain asks the daemon to take the drain of a network back, or with "" all
// drains.
func (c *Client) Undrain(ctx context.Context, network string) error {
	return c.post(ctx, "/v1/undrain", Undrain{network})
}

func (c *Client) post(ctx context.Context, path string, order any) error {
	b, err := json.Marshal(order)
	if err != nil {
		return fmt.Errorf("encode order: %w", err)
	}
	resp, err := c.do(ctx, http.MethodPost, path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return errors.New(strings.TrimSpace(string(text)))
	}
	return nil
}
