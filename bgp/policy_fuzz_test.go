package bgp

import (
	"encoding/binary"
	"strings"
	"testing"
	"unique"
)

// FuzzASPath holds that no expression that Validate lets through, on no path,
// does anything but match or not.
func FuzzASPath(f *testing.F) {
	f.Add("_65001_", []byte{0, 0, 0xfd, 0xe9}, true)
	f.Add("^(65001|65002) .*$", []byte{0, 0, 0xfd, 0xe9, 0, 0, 0xfd, 0xea}, false)
	f.Fuzz(func(t *testing.T, expr string, raw []byte, set bool) {
		if _, err := CompileASPath(expr); err != nil || len(raw) > 4*255 {
			return
		}
		var asns []uint32
		for ; len(raw) >= 4; raw = raw[4:] {
			asns = append(asns, binary.BigEndian.Uint32(raw))
		}
		attrs := pathAttributes{asPath: string(appendSegment(nil, asns, set)), communities: packCommunities(asns)}
		for _, asn := range asns {
			if !attrs.hasASN(asn) || !attrs.hasCommunity(asn) {
				t.Errorf("%d is not in %q", asn, attrs.asPath)
			}
		}
		rules := compileRules([]ImportRule{{Prefix: prefix("0.0.0.0/0"), Max: 32, ASPath: expr}})
		judge(rules, prefix("10.0.0.0/8"), candidate{attrs: unique.Make(attrs)})
	})
}

// FuzzNetstat holds that the kernel's counters are read without a panic.
func FuzzNetstat(f *testing.F) {
	f.Add("TcpExt: A TCPMD5Failure\nTcpExt: 1 2\n")
	f.Add("TcpExt: TCPMD5Failure\n")
	f.Fuzz(func(_ *testing.T, text string) { parseMD5Discarded(strings.NewReader(text)) })
}
