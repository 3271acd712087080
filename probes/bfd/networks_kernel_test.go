package bfd_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/egret-router/egret/lab"
	"github.com/egret-router/egret/probes/bfd"
)

// TestTwoNetworksWithEqualAddresses: FRR in one VRF and BIRD in the other, the
// same addresses, every kind of session. What happens to one network does not
// disturb the other.
func TestTwoNetworksWithEqualAddresses(t *testing.T) {
	lab.Require(t, lab.VRF)
	l, gw, s := newGateway(t, "frr", "bird")
	red, blue := connect(t, l, gw, "red", 1), connect(t, l, gw, "blue", 2)
	all := append(red.sessions(), blue.sessions()...)
	s.set(all...)
	red.start("frr", false, red.sessions())
	blue.start("bird", false, blue.sessions())
	s.up(names(all)...)
	for _, n := range []*network{red, blue} {
		n.theyAre("Up", n.sessions()...)
	}
	for _, c := range []struct{ lost, kept *network }{{red, blue}, {blue, red}} {
		before := map[string]bfd.State{}
		for _, k := range c.kept.sessions() {
			before[k.Name] = s.state(k.Name)
		}
		c.lost.freeze(s, c.lost.sessions())
		c.lost.cut(s, c.lost.sessions())
		for name, was := range before {
			if st := s.state(name); st.Downs != was.Downs || !st.Since.Equal(was.Since) || st.Discriminator != was.Discriminator {
				t.Errorf("%s failed, and %s was disturbed: %+v, before %+v", c.lost.far.Name, name, st, was)
			}
		}
	}

	// A VRF that is deleted and made again is found again.
	gw.MustIP("link del red")
	s.await("red/four", "no device", func(st bfd.State) bool {
		return st.Status == bfd.Down && strings.Contains(st.LastError, `bind to device "red": no such device`)
	})
	gw.MustIP("link add red type vrf table 101", "link set red up", "link set eth1 master red", "addr replace fd16::1/64 dev eth1 nodad",
		"route replace 10.0.0.0/24 via 172.16.0.2 dev eth1 table 101", "route replace fd00::/64 via fd16::2 dev eth1 table 101")
	s.up(names(red.sessions())...)
	red.theyAre("Up", red.sessions()...)
}

// TestDistance: a packet that crossed a router is refused by a session of a
// single hop, and by one over several hops that allows fewer.
func TestDistance(t *testing.T) {
	l, gw, s := newGateway(t, "frr")
	n := connect(t, l, gw, "mid", 1)
	end := l.MustNamespace("end")
	l.MustLink(n.far, "e0", end, "u0")
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := n.far.Sysctl(key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	n.far.MustIP("addr del 10.0.0.5/32 dev lo", "addr del fd00::5/128 dev lo", "addr add 10.0.0.1/24 dev e0", "addr add fd00::1/64 dev e0 nodad")
	end.MustIP("addr add 10.0.0.5/24 dev u0", "addr add fd00::5/64 dev u0 nodad", "route add default via 10.0.0.1", "route add default via fd00::1")
	four, six := session("four", n.device, "172.16.0.1", "10.0.0.5"), session("six", n.device, "fd16::1", "fd00::5")
	four.Multihop, six.Multihop = true, true
	n.far = end
	n.start("frr", false, []bfd.Config{four, six})

	strict := []bfd.Config{four, six}
	strict[0].MinTTL, strict[1].MinTTL = 255, 255
	s.set(strict...)
	for _, c := range strict {
		s.await(c.Name, "refused", func(st bfd.State) bool {
			return st.Refused > 2 && st.In == 0 && st.Status == bfd.Down && st.LastError == "packet came too far: TTL 254, at least 255 is wanted"
		})
	}
	fair := []bfd.Config{four, six}
	fair[0].MinTTL, fair[1].MinTTL = 254, 254
	s.set(fair...)
	s.up("four", "six")
	n.theyAre("Up", fair...)
}

// TestAuthentication with BIRD, which has all three kinds; FRR has none.
func TestAuthentication(t *testing.T) {
	for _, kind := range []bfd.AuthType{bfd.SimplePassword, bfd.KeyedSHA1, bfd.MeticulousSHA1} {
		t.Run(string(kind), func(t *testing.T) {
			l, gw, s := newGateway(t, "bird")
			n := connect(t, l, gw, "red", 1)
			c := session("four", n.device, "172.16.0.1", "172.16.0.2")
			r := theirEnd(c, false)
			r.PasswordAlgo, r.Password = strings.ReplaceAll(string(kind), "-", " "), "the secret"
			n.run("bird", r)
			wrong := c
			wrong.Auth = &bfd.Auth{Type: kind, KeyID: 1, Key: "another secret"}
			for _, bad := range []bfd.Config{c, wrong} {
				before := s.state("four").Refused
				s.set(bad)
				s.await("four", "refused", func(st bfd.State) bool {
					return st.Refused > before+1 && st.Status == bfd.Down && strings.Contains(st.LastError, "authentication failed")
				})
			}
			c.Auth = &bfd.Auth{Type: kind, KeyID: 1, Key: "the secret"}
			s.set(c)
			s.up("four")
			n.theyAre("Up", c)
			st := s.state("four")
			s.await("four", "many packets later", func(now bfd.State) bool { return now.In > st.In+30 })
			if now := s.state("four"); now.Downs != st.Downs {
				t.Errorf("did not stay up: %+v", now)
			}
			// A peer that begins its numbers anew is let in after two detection times.
			n.router.Kill9()
			if err := n.router.Start(); err != nil {
				t.Fatal(err)
			}
			s.await("four", "up again", func(now bfd.State) bool { return now.Status == bfd.Up && now.Ups > st.Ups })
			n.theyAre("Up", c)
		})
	}
}

// TestSteady: 50 ms with both peers for a while, beside busy loops, where each
// side is patient. BenchmarkSteady counts for 50 ms x 3.
func TestSteady(t *testing.T) {
	l, gw, s := newGateway(t, "frr", "bird")
	var want []bfd.Config
	for i, kind := range []string{"frr", "bird"} {
		n := connect(t, l, gw, "steady"+kind, i+1)
		all := n.sessions()[:2]
		want = append(want, all...)
		n.start(kind, false, all)
	}
	s.set(want...)
	s.up(names(want)...)
	for range 2 {
		gw.MustStart("busy", "sh", "-c", "while :; do :; done")
	}
	before := map[string]bfd.State{}
	for _, c := range want {
		before[c.Name] = s.state(c.Name)
	}
	for _, c := range want {
		st := s.await(c.Name, "100 packets later", func(st bfd.State) bool { return st.In > before[c.Name].In+100 })
		if st.Status != bfd.Up || st.Downs != before[c.Name].Downs {
			t.Errorf("%s did not stay up: %+v", c.Name, st)
		}
		if told := s.notified(c.Name); len(told) == 0 || told[len(told)-1].Status != bfd.Up {
			t.Errorf("%s: notified of %+v", c.Name, told)
		}
	}
}

// TestWhyNot: what the kernel refuses is told, and tried again.
func TestWhyNot(t *testing.T) {
	l, gw, s := newGateway(t, "bird")
	n := connect(t, l, gw, "red", 1)
	device, local, zone := n.sessions()[0], n.sessions()[1], n.sessions()[2]
	device.Device = "nowhere"
	local.Local = address("fd16::77")
	zone.Peer, zone.Local = address(farLinkLocal+"%nowhere"), address(ourLinkLocal+"%nowhere")
	s.set(device, local, zone)
	for c, text := range map[*bfd.Config]string{&device: `bind to device "nowhere": no such device`, &local: "bind to fd16::77: cannot assign requested address", &zone: `no device "nowhere"`} {
		s.await(c.Name, "an error", func(st bfd.State) bool { return st.Status == bfd.Down && strings.Contains(st.LastError, text) })
	}
	n.start("bird", false, []bfd.Config{local})
	gw.MustIP(fmt.Sprintf("addr add fd16::77/64 dev %s nodad", n.port))
	s.up(local.Name)
	n.theyAre("Up", local)
}
