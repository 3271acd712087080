package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// A Version is what an object was from one moment on.
type Version struct {
	// Revision counts the changes of all objects: it orders them.
	Revision int64
	// Resource is a plural, such as pods.
	Resource, Namespace, Name string
	// Object is nil for one that was deleted.
	Object []byte
}

// History is every version that every object of an API group ever had, in order,
// from etcd itself: also what came and went while nobody watched. The objects are
// JSON, so the group must be one of custom resources. etcd keeps five minutes.
func (s *Server) History(ctx context.Context, group string) ([]Version, error) {
	list, err := s.history(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("read history of %s: %w", group, err)
	}
	return list, nil
}

func (s *Server) history(ctx context.Context, group string) ([]Version, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DialContext: s.Dial, DisableKeepAlives: true}}
	ask := func(path string, body any) (io.ReadCloser, error) {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.etcdURL+path, bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		answer, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode != http.StatusOK {
			answer.Body.Close()
			return nil, errors.New(answer.Status)
		}
		return answer.Body, nil
	}
	// A key of ours behind all of the group's ends the list: who watches is not told
	// that there is no more.
	prefix := "/registry/" + group
	first, end, behind := []byte(prefix+"/"), []byte(prefix+"0end"), []byte(prefix+"1")
	put, err := ask("/v3/kv/put", map[string][]byte{"key": end})
	if err != nil {
		return nil, err
	}
	put.Close()
	watch, err := ask("/v3/watch", map[string]any{"create_request": map[string]any{"key": first, "range_end": behind, "start_revision": "1"}})
	if err != nil {
		return nil, err
	}
	defer watch.Close()
	return readHistory(watch, prefix+"/", string(end))
}

// readHistory reads what a watch tells, until the key that is called end.
func readHistory(from io.Reader, prefix, end string) ([]Version, error) {
	var list []Version
	for decoder := json.NewDecoder(from); ; {
		var message struct {
			Result struct {
				Canceled bool
				Reason   string `json:"cancel_reason"`
				Events   []struct {
					Type string
					KV   struct {
						Key, Value []byte
						Revision   int64 `json:"mod_revision,string"`
					}
				}
			}
			Error json.RawMessage
		}
		if err := decoder.Decode(&message); err != nil {
			return nil, err
		}
		if message.Result.Canceled || message.Error != nil {
			return nil, fmt.Errorf("the watch ended: %s %s", message.Result.Reason, message.Error)
		}
		for _, e := range message.Result.Events {
			if string(e.KV.Key) == end {
				return list, nil
			}
			words := strings.Split(strings.TrimPrefix(string(e.KV.Key), prefix), "/")
			v := Version{Revision: e.KV.Revision, Resource: words[0], Name: words[len(words)-1]}
			if len(words) == 3 {
				v.Namespace = words[1]
			}
			if e.Type != "DELETE" {
				v.Object = e.KV.Value
			}
			list = append(list, v)
		}
	}
}
