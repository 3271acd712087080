package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxName is how long the name of an object of the configuration may be.
const maxName = 63

// plainName makes a name of the configuration of an object's name, which may be
// longer and have dots: itself if it can stay, else what is left of it and a
// hash.
func plainName(s string) string {
	if validName(s) {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			b.WriteByte(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() >= maxName-12 {
			break
		}
	}
	return strings.Trim(b.String()+"-"+hex.EncodeToString(sum[:5]), "-")
}

func validName(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
		case c == '-' && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// namer gives names of the configuration to objects, each one of its own.
type namer struct{ taken map[string]string }

// name is that of the object that is called s. An object whose name is the one
// that another was given gets a hash, too.
func (n *namer) name(s string) string {
	if n.taken == nil {
		n.taken = map[string]string{}
	}
	name, key := plainName(s), s
	for {
		if owner, taken := n.taken[name]; !taken || owner == s {
			n.taken[name] = s
			return name
		}
		key += "."
		name = plainName(key + "_") // never valid as it is, so hashed
	}
}

// gatewayName is the name of a gateway's pool in the configuration of a node. A
// pool of the cluster may have several gateways there.
func gatewayName(g *Gateway) string { return g.Namespace + "--" + g.Name }
