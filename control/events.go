package control

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/egret-router/egret/egress"
)

// eventWait bounds how long a question for events waits for one.
const eventWait = 30 * time.Second

// EventSource is a Source that remembers events; *egress.Router is the real one.
//
//	GET /v1/events?after=SEQ[&wait=true]   Events
//
// With wait the answer comes with the next event, or without one after 30 s.
type EventSource interface {
	Events(ctx context.Context, after uint64) []egress.Event
	Started() time.Time
}

// Events are events of one daemon: those that began at another time count anew.
type Events struct {
	Started time.Time      `json:"started"`
	Events  []egress.Event `json:"events"`
}

func serveEvents(mux *http.ServeMux, src Source, log *slog.Logger) {
	events, ok := src.(EventSource)
	if !ok {
		return
	}
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		after, err := strconv.ParseUint(q.Get("after"), 10, 64)
		if q.Get("after") != "" && err != nil {
			http.Error(w, fmt.Sprintf("after %q is not the number of an event", q.Get("after")), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), eventWait)
		defer cancel()
		if q.Get("wait") != "true" {
			cancel()
		}
		answer(w, log, Events{Started: events.Started(), Events: append([]egress.Event{}, events.Events(ctx, after)...)}, true)
	})
}

// Events asks for the events after one; with wait it waits for one, up to 30 s.
func (c *Client) Events(ctx context.Context, after uint64, wait bool) (*Events, error) {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}, "wait": {strconv.FormatBool(wait)}}
	out := &Events{}
	return out, c.get(ctx, "/v1/events?"+q.Encode(), out)
}
