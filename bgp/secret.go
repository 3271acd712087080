package bgp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// maxPassword is TCP_MD5SIG_MAXKEYLEN of linux/tcp.h.
const maxPassword = 80

// password reads the TCP-MD5 password of a peer, "" if it has none. It is read
// anew at every Set, and kept nowhere but in the session and in GoBGP.
func (p Peer) password() (string, error) {
	switch {
	case p.PasswordEnv != "":
		secret, ok := os.LookupEnv(p.PasswordEnv)
		if !ok {
			return "", fmt.Errorf("password: environment variable %q is not set", p.PasswordEnv)
		}
		return checkPassword(secret)
	case p.PasswordFile != "":
		f, err := os.Open(p.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("password: %w", err)
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxPassword+3))
		if err != nil {
			return "", fmt.Errorf("password: %w", err)
		}
		return checkPassword(strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"))
	}
	return "", nil
}

func checkPassword(secret string) (string, error) {
	switch {
	case secret == "":
		return "", errors.New("password: it is empty")
	case len(secret) > maxPassword:
		return "", fmt.Errorf("password: it is longer than %d bytes", maxPassword)
	case strings.ContainsAny(secret, "\n\x00"):
		return "", errors.New("password: it is more than one line")
	}
	return secret, nil
}

// netstat is where the kernel counts segments that TCP-MD5 discarded, for the
// network namespace as a whole.
const netstat = "/proc/thread-self/net/netstat"

// md5Discarded reads that count; 0 if it cannot.
func md5Discarded() uint64 {
	f, err := os.Open(netstat)
	if err != nil {
		return 0
	}
	defer f.Close()
	return parseMD5Discarded(f)
}

// parseMD5Discarded adds up the three reasons in the kernel's pairs of lines, of
// which the first has the names and the second the values.
func parseMD5Discarded(r io.Reader) uint64 {
	var sum uint64
	lines := bufio.NewScanner(io.LimitReader(r, 1<<16))
	for lines.Scan() {
		names := strings.Fields(lines.Text())
		if len(names) == 0 || names[0] != "TcpExt:" || !lines.Scan() {
			continue
		}
		values := strings.Fields(lines.Text())
		for i, name := range names {
			if i >= len(values) {
				break
			}
			switch name {
			case "TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure":
				n, _ := strconv.ParseUint(values[i], 10, 64)
				sum += n
			}
		}
	}
	return sum
}
