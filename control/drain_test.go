package control

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/egress"
	"github.com/egret-router/egret/egress/drain"
)

// drainer notes its orders and answers with err.
type drainer struct {
	source
	err    error
	orders *[]any
}

func (d drainer) Drain(q egress.DrainRequest) error {
	*d.orders = append(*d.orders, q)
	return d.err
}

func (d drainer) Undrain(network string) error {
	*d.orders = append(*d.orders, network)
	return d.err
}

func TestDrainOrders(t *testing.T) {
	var got []any
	c := serve(t, drainer{orders: &got})
	deadline, delay := 90*time.Second, time.Duration(0)
	orders := []any{egress.DrainRequest{Network: "red", Deadline: &deadline, Delay: &delay, Cut: true}, egress.DrainRequest{}, "red", ""}
	for _, o := range orders {
		var err error
		if q, ok := o.(egress.DrainRequest); ok {
			err = c.Drain(t.Context(), q)
		} else {
			err = c.Undrain(t.Context(), o.(string))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(got, orders) {
		t.Errorf("came over as %+v", got)
	}
}

// TestDrainErrors come over as they are, each with its code.
func TestDrainErrors(t *testing.T) {
	for code, err := range map[int]error{
		http.StatusNotFound:            fmt.Errorf(`drain network "red": %w`, egress.ErrNoSuchNetwork),
		http.StatusConflict:            fmt.Errorf(`undrain network "red": %w`, egress.ErrNotDrained),
		http.StatusBadRequest:          fmt.Errorf("deadline -1s is %w", drain.ErrBadOrder),
		http.StatusInternalServerError: errors.New("no space left on device"),
	} {
		var got []any
		c := serve(t, drainer{orders: &got, err: err})
		if back := c.Drain(t.Context(), egress.DrainRequest{}); back == nil || back.Error() != err.Error() {
			t.Errorf("%v came over as %v", err, back)
		}
		resp, doErr := c.do(t.Context(), http.MethodPost, "/v1/undrain", strings.NewReader("{}"))
		if doErr != nil || resp.StatusCode != code {
			t.Errorf("%v: %v, %v", err, resp, doErr)
		}
	}
}

// TestDrainRefuses what is no order; nothing of it is carried out.
func TestDrainRefuses(t *testing.T) {
	var got []any
	c := serve(t, drainer{orders: &got})
	for _, body := range []string{"", "red", `{"network": 1}`, `{"net": "red"}`, `{} {}`, `{"network": "` + strings.Repeat("x", maxOrder) + `"}`} {
		for _, path := range []string{"/v1/drain", "/v1/undrain"} {
			resp, err := c.do(t.Context(), http.MethodPost, path, strings.NewReader(body))
			if err != nil || resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s %.20q: %v, %v", path, body, resp, err)
			}
		}
	}
	resp, err := c.do(t.Context(), http.MethodGet, "/v1/drain", nil)
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v, %v", resp, err)
	}
	if len(got) != 0 {
		t.Errorf("carried out: %v", got)
	}
	if err := serve(t, source{}).Drain(t.Context(), egress.DrainRequest{}); err == nil {
		t.Error("a source that cannot drain did")
	}
}
