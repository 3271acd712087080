package traffic

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func TestPacketsAreReadAsTheyAreBuilt(t *testing.T) {
	for _, text := range []string{"10.244.1.10:1234 10.0.0.5:80", "[fd00:244:1::10]:1234 [fd00:10::5]:80"} {
		source, dest := splitPair(t, text)
		for protocol, number := range map[string][2]uint8{"tcp": {protoTCP, protoTCP}, "udp": {protoUDP, protoUDP}, "icmp": {protoICMP, protoICMPv6}} {
			in := Injection{Source: source, Dest: dest, Protocol: protocol, Flags: 0x12, Payload: []byte("hello")}
			b, err := in.build()
			if err != nil {
				t.Fatal(err)
			}
			want := Packet{Source: source.Addr(), Dest: dest.Addr(), Protocol: number[0], SourcePort: 1234, DestPort: 80, Length: len(b)}
			if source.Addr().Is6() {
				want.Protocol = number[1]
			}
			switch protocol {
			case "tcp":
				want.TCPFlags = 0x12
			case "icmp":
				want.SourcePort, want.DestPort = 8, 0
				if source.Addr().Is6() {
					want.SourcePort = 128
				}
			}
			if got, ok := ParsePacket(b); !ok || got != want {
				t.Errorf("%s: %+v, want %+v", protocol, got, want)
			}
			for n := range b {
				ParsePacket(b[:n]) // must not panic
			}
		}
	}
}

func splitPair(t *testing.T, text string) (a, b netip.AddrPort) {
	t.Helper()
	for i, c := range text {
		if c == ' ' {
			return netip.MustParseAddrPort(text[:i]), netip.MustParseAddrPort(text[i+1:])
		}
	}
	t.Fatalf("no pair: %q", text)
	return a, b
}

func TestFragmentsHaveNoPorts(t *testing.T) {
	in := Injection{Source: netip.MustParseAddrPort("[fd00::1]:1"), Dest: netip.MustParseAddrPort("[fd00::2]:2"), Protocol: "udp"}
	b, err := in.build()
	if err != nil {
		t.Fatal(err)
	}
	fragment := func(offset byte) []byte {
		f := append([]byte(nil), b[:40]...)
		f[6] = 44
		f = append(f, protoUDP, 0, 0, offset, 0, 0, 0, 1)
		return append(f, b[40:]...)
	}
	first, _ := ParsePacket(fragment(1)) // offset 0, more fragments
	later, _ := ParsePacket(fragment(8))
	if first.DestPort != 2 || first.Protocol != protoUDP || later.DestPort != 0 || later.Protocol != protoUDP {
		t.Errorf("first %+v, later %+v", first, later)
	}
}

func FuzzParsePacket(f *testing.F) {
	for _, text := range []string{"10.244.1.10:1234 10.0.0.5:80", "[fd00:244:1::10]:1234 [fd00:10::5]:80"} {
		source, dest := netip.AddrPort{}, netip.AddrPort{}
		for i, c := range text {
			if c == ' ' {
				source, dest = netip.MustParseAddrPort(text[:i]), netip.MustParseAddrPort(text[i+1:])
			}
		}
		b, err := Injection{Source: source, Dest: dest, Protocol: "tcp"}.build()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := ParsePacket(b); ok && (!p.Source.IsValid() || !p.Dest.IsValid() || p.String() == "") {
			t.Errorf("%x: %+v", b, p)
		}
	})
}

func TestGaps(t *testing.T) {
	ms := func(n ...int) (list []time.Duration) {
		for _, i := range n {
			list = append(list, time.Duration(i)*time.Millisecond)
		}
		return list
	}
	longest, list := gaps(ms(0, 10, 25, 30, 40), []bool{true, false, false, true, false}, 50*time.Millisecond)
	want := []Gap{{First: 1, Lost: 2, AfterMS: 10, LastedMS: 20}, {First: 4, Lost: 1, AfterMS: 40, LastedMS: 10}}
	if longest != 20 || !reflect.DeepEqual(list, want) {
		t.Errorf("longest %v, gaps %+v, want %+v", longest, list, want)
	}
}

func TestParseFlagsAndSources(t *testing.T) {
	if flags, err := ParseFlags("syn+FIN"); err != nil || flags != 3 {
		t.Errorf("flags %#x, %v", flags, err)
	}
	if _, err := ParseFlags("XMAS"); err == nil {
		t.Error("an unknown flag is accepted")
	}
	for text, want := range map[string]string{
		"": "invalid AddrPort", "10.0.0.1": "10.0.0.1:0", "10.0.0.1:44": "10.0.0.1:44", "fd00::1": "[fd00::1]:0", "[fd00::1]:44": "[fd00::1]:44",
	} {
		if got, err := ParseSource(text); err != nil || got.String() != want {
			t.Errorf("source %q = %v, %v, want %s", text, got, err, want)
		}
	}
	if got, err := ParseSource(":44"); err != nil || got.Port() != 44 || got.Addr().IsValid() {
		t.Errorf("source with a port alone: %v, %v", got, err)
	}
	if _, err := ParseSource("host"); err == nil {
		t.Error("a name is accepted as a source")
	}
}
