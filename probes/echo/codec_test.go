package echo

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

func TestCodec(t *testing.T) {
	keys := []key{keyOf("a/b@n1"), keyOf("a/c@n1")}
	b := appendRequest(nil, 0x0102030405060708, keys)
	want := []byte{'E', 'g', 'E', 'c', 1, 1, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8}
	if !bytes.Equal(b[:headerSize], want) || len(b) != headerSize+2*keySize {
		t.Errorf("request %x", b)
	}
	nonce, got, err := parseRequest(append(b, "of a later version"...), nil)
	if err != nil || nonce != 0x0102030405060708 || !slices.Equal(got, keys) {
		t.Errorf("%x %x %v", nonce, got, err)
	}
	b = appendAnswer(nil, 7, []State{Absent, Ready, Draining, Failed, 9})
	_, states, err := parseAnswer(b, nil)
	if err != nil || !slices.Equal(states, []State{Absent, Ready, Draining, Failed, Failed}) {
		t.Errorf("%v %v", states, err)
	}
	if _, _, err := parseRequest(b, nil); err == nil {
		t.Error("an answer is read as a request")
	}
	if got := fmt.Sprint(Absent, Ready, Draining, Failed, State(77)); got != "absent ready draining failed failed" {
		t.Error(got)
	}
}

// TestAnswerIsNoLonger: a server sends no more than it gets, and both fit.
func TestAnswerIsNoLonger(t *testing.T) {
	for n := range MaxInstances + 1 {
		q, a := appendRequest(nil, 1, make([]key, n)), appendAnswer(nil, 1, make([]State, n))
		if len(a) > len(q) || len(q) > 1280-40-8 {
			t.Fatalf("%d gateways: %d bytes are asked, %d answered", n, len(q), len(a))
		}
	}
}

// FuzzParse holds that nothing panics, that bounds hold, and that what is read is
// what was written.
func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendRequest(nil, 1, []key{{1}, {2}}))
	f.Add(appendAnswer(nil, 1, []State{Ready}))
	f.Add(append(appendHeader(nil, request, MaxInstances+1, 2), make([]byte, 4096)...))
	f.Add(appendHeader(nil, answer, 65535, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		if nonce, keys, err := parseRequest(b, nil); err == nil {
			again := appendRequest(nil, nonce, keys)
			if len(keys) > MaxInstances || len(again) > len(b) || !bytes.Equal(again[5:], b[5:len(again)]) {
				t.Fatalf("%x is read as %x", b, again)
			}
		} else if len(keys) > 0 {
			t.Fatal("keys and an error")
		}
		if nonce, states, err := parseAnswer(b, nil); err == nil {
			if len(states) > MaxInstances || slices.Max(append(states, 0)) > Failed {
				t.Fatalf("%x is read as %v", b, states)
			}
			again := appendAnswer(nil, nonce, states)
			if n, s, err := parseAnswer(again, nil); err != nil || n != nonce || !slices.Equal(s, states) {
				t.Fatalf("%x is read as %v", again, s)
			}
		}
	})
}
