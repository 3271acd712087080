package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/egret-router/egret/egress/steer"
)

// isReady says whether pods can start on the node: a round has put in place what the
// cluster, or what was last known of it, wants. One that fails later does not undo it.
func isReady(s *steer.Status) bool {
	return s != nil && s.Round.Rounds > s.Round.Errors
}

// agentHandler answers with the status, and whether the agent is ready.
func agentHandler(status func() *steer.Status, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !isReady(status()) {
			http.Error(w, "no round has succeeded yet", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		s := status()
		if s == nil {
			http.Error(w, "the first round is not finished yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(s); err != nil {
			log.Debug("status not written", "err", err)
		}
	})
	return mux
}

func serveAgent(ctx context.Context, address string, status func() *steer.Status, log *slog.Logger) error {
	srv := &http.Server{Addr: address, Handler: agentHandler(status, log), ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); err != nil && ctx.Err() == nil {
		log.Error("status is not served", "err", err) // the node's traffic does not depend on it
	}
	return nil
}
