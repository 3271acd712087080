package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The texts are of FRR 8.4.4 and BIRD 2.0.12, shortened.
const (
	frrTable4 = `{
 "vrfId": 0,
 "routes": { "10.0.0.0/24": [{"valid":true,"bestpath":true,"pathFrom":"external","peerId":"(unspec)","path":"","nexthops":[{"ip":"0.0.0.0"}]}],
 "198.51.100.0/28": [{"valid":true,"bestpath":true,"pathFrom":"external","peerId":"172.16.0.1","path":"64512","nexthops":[{"ip":"172.16.0.1"}]}]
 }  } `
	frrTable6 = `{ "vrfId": 0, "routes": { "2001:db8:100::/124": [{"valid":true,"peerId":"fd00:16::1","path":"64512"}] }  } `
	frrPeers  = `{
  "172.16.0.1":{"remoteAs":64512,"bgpState":"Established","connectionsEstablished":1,"connectionsDropped":0},
  "fd00:16::1":{"remoteAs":64512,"bgpState":"Active","connectionsEstablished":0,"connectionsDropped":0}
}`
	birdProtocols = `BIRD 2.0.12 ready.
Name       Proto      Table      State  Since         Info
device1    Device     ---        up     22:28:30.123  
destination4 Static     master4    up     22:28:30.123  
gateway4   BGP        ---        up     22:28:32.640  Established   
gateway6   BGP        ---        start  22:28:32.640  Active        Socket: Connection refused
`
	birdRoutes = `BIRD 2.0.12 ready.
Table master4:
203.0.113.0/28       unicast [gateway4 22:28:32.640] * (100) [AS64512i]
	via 172.16.0.1 on eth0
Table master6:
2001:db8:200::/124   unicast [gateway6 22:28:32.640] * (100) [AS64512i]
	via fd00:16::1 on eth0
`
)

func TestParseFRR(t *testing.T) {
	v, err := parseFRR(frrTable4 + frrTable6 + frrPeers)
	if err != nil {
		t.Fatal(err)
	}
	want := prefixes("198.51.100.0/28", "2001:db8:100::/124")
	if !slices.Equal(v.Learned, want) {
		t.Errorf("learned %v, want %v", v.Learned, want)
	}
	if len(v.Sessions) != 1 || v.Sessions["172.16.0.1"].up != 1 {
		t.Errorf("sessions %v, want only 172.16.0.1", v.Sessions)
	}
	again, err := parseFRR(frrTable4 + frrTable6 + strings.Replace(frrPeers, `"connectionsEstablished":1`, `"connectionsEstablished":2`, 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.lostSince(v); err != nil {
		t.Errorf("nothing happened: %v", err)
	}
	if again.lostSince(v) == nil {
		t.Error("a session that came back looks like one that stayed")
	}
	for _, broken := range []string{"", frrTable4, frrTable4 + frrTable6, "% Unknown command", strings.Replace(frrTable4, "/28", "/x", 1) + frrTable6 + frrPeers} {
		if _, err := parseFRR(broken); err == nil {
			t.Errorf("no error for %q", broken)
		}
	}
}

func TestParseBIRD(t *testing.T) {
	v, err := parseBIRD(birdProtocols, birdRoutes)
	if err != nil {
		t.Fatal(err)
	}
	want := prefixes("203.0.113.0/28", "2001:db8:200::/124")
	if !slices.Equal(v.Learned, want) {
		t.Errorf("learned %v, want %v", v.Learned, want)
	}
	if want := 22*time.Hour + 28*time.Minute + 32640*time.Millisecond; len(v.Sessions) != 1 || v.Sessions["gateway4"].since != want {
		t.Errorf("sessions %+v, want only gateway4, since %v", v.Sessions, want)
	}
	for since, lost := range map[string]bool{"22:28:32.642": false, "22:29:01.000": true} {
		later, err := parseBIRD(strings.ReplaceAll(birdProtocols, "22:28:32.640", since), birdRoutes)
		if err != nil {
			t.Fatal(err)
		}
		if err := later.lostSince(v); (err != nil) != lost {
			t.Errorf("since %s: lost: %v, want %v", since, err, lost)
		}
	}
	down, err := parseBIRD(strings.Replace(birdProtocols, "Established", "Active", 1), birdRoutes)
	if err != nil {
		t.Fatal(err)
	}
	if down.lostSince(v) == nil {
		t.Error("a session that is down was not lost")
	}
	if _, err := parseBIRD(strings.ReplaceAll(birdProtocols, "22:28:32.640", "yesterday"), birdRoutes); err == nil {
		t.Error("no error for a broken time")
	}
	if _, err := parseBIRD(birdProtocols, "203.0.113.0/99 unicast\n"); err == nil {
		t.Error("no error for a broken prefix")
	}
}

func TestViewWants(t *testing.T) {
	two := map[string]session{"a": {}, "b": {}}
	pools := prefixes("198.51.100.0/28", "2001:db8:100::/124")
	swapped := []netip.Prefix{pools[1], pools[0]}
	if err := (view{Learned: pools, Sessions: two}).wants(swapped...); err != nil {
		t.Errorf("the order matters: %v", err)
	}
	for name, v := range map[string]view{
		"one session":  {Learned: pools, Sessions: map[string]session{"a": {}}},
		"one too few":  {Learned: pools[:1], Sessions: two},
		"one too many": {Learned: append(prefixes("10.0.0.0/24"), pools...), Sessions: two},
	} {
		if v.wants(pools...) == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	network, saw, err := parseAnswer("red saw 198.51.100.3:44444\n")
	if err != nil || network != "red" || saw != netip.MustParseAddrPort("198.51.100.3:44444") {
		t.Errorf("got %q, %v, %v", network, saw, err)
	}
	for _, broken := range []string{"", "red", "red saw nobody", "red saw 1.2.3.4", "red saw 1.2.3.4:5 twice"} {
		if _, _, err := parseAnswer(broken); err == nil {
			t.Errorf("no error for %q", broken)
		}
	}
}

func TestParseLibraries(t *testing.T) {
	got, err := parseLibraries("\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n")
	if want := []string{"/lib/x/libc.so.6", "/lib64/ld-linux-x86-64.so.2"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if got, err := parseLibraries("\tnot a dynamic executable\n"); err != nil || len(got) != 0 {
		t.Errorf("static program: got %q, %v", got, err)
	}
	if _, err := parseLibraries("\tlibx.so => not found\n"); err == nil {
		t.Error("no error for a missing library")
	}
}

func TestMerged(t *testing.T) {
	for name, want := range map[string]string{"/bin/x": "usr/bin/x", "/lib64/y": "usr/lib64/y", "/usr/bin/x": "usr/bin/x", "etc/z": "etc/z"} {
		if got := merged(name); got != want {
			t.Errorf("merged(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestEventually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		err := eventually(t.Context(), time.Minute, "third try", func(context.Context) error {
			if tries++; tries < 3 {
				return errors.New("not yet")
			}
			return nil
		})
		if err != nil || tries != 3 {
			t.Errorf("%d tries, %v; want 3, nil", tries, err)
		}
		start := time.Now()
		err = eventually(t.Context(), time.Minute, "the impossible", func(context.Context) error { return errors.New("because") })
		if err == nil || !strings.Contains(err.Error(), "the impossible: not within 1m0s: because") {
			t.Errorf("error %v", err)
		}
		if time.Since(start) != time.Minute {
			t.Errorf("gave up after %v, want a minute", time.Since(start))
		}
	})
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}
