package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// The daemons are asked over their own sockets: starting vtysh or birdc for
// every look at a table costs an emulated machine half a second.

// dialogTimeout bounds one conversation with a daemon.
const dialogTimeout = 30 * time.Second

// maxReply bounds what is read of one reply; 100,000 routes are less.
const maxReply = 256 << 20

func dialDaemon(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(dialogTimeout))
}

// vtyDialog speaks to a daemon of FRR as vtysh does (lib/vty.c of FRR 8.4):
// commands end with a NUL, replies with three of them and the command's result.
// It stops at the first command that fails and returns what all have printed.
func vtyDialog(ctx context.Context, path string, commands []string) (string, error) {
	c, err := dialDaemon(ctx, path)
	if err != nil {
		return "", err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	var out strings.Builder
	for _, command := range append([]string{"enable"}, commands...) {
		if _, err := io.WriteString(c, command+"\x00"); err != nil {
			return out.String(), err
		}
		text, result, err := readVTYReply(r)
		if err != nil {
			return out.String(), fmt.Errorf("reply to %q: %w", command, err)
		}
		// 0 is success, 1 a warning, which `show` gives for what does not exist; the others are failures.
		if result > 1 {
			return out.String(), fmt.Errorf("%q failed (%d): %s", command, result, strings.TrimSpace(text))
		}
		out.WriteString(text)
	}
	return out.String(), nil
}

func readVTYReply(r *bufio.Reader) (text string, result byte, err error) {
	var reply bytes.Buffer
	for reply.Len() < maxReply {
		part, err := r.ReadSlice(0)
		reply.Write(part)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return "", 0, err
		}
		if bytes.HasSuffix(reply.Bytes(), []byte("\x00\x00\x00")) {
			result, err = r.ReadByte()
			return string(bytes.TrimRight(reply.Bytes(), "\x00")), result, err
		}
	}
	return "", 0, errors.New("reply is too long")
}

// birdDialog speaks to BIRD as birdc does (nest/cli.c of BIRD 2): a line of a
// reply is a four-digit code, "-" if more follow, and text, or a blank and more
// text under the same code. Codes from 8000 are errors.
func birdDialog(ctx context.Context, path, command string) (string, error) {
	c, err := dialDaemon(ctx, path)
	if err != nil {
		return "", err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	if _, err := readBIRDReply(r); err != nil {
		return "", fmt.Errorf("greeting: %w", err)
	}
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		return "", err
	}
	text, err := readBIRDReply(r)
	if err != nil {
		return text, fmt.Errorf("reply to %q: %w", command, err)
	}
	return text, nil
}

func readBIRDReply(r *bufio.Reader) (string, error) {
	var out strings.Builder
	for out.Len() < maxReply {
		line, err := r.ReadString('\n')
		if err != nil {
			return out.String(), err
		}
		line = strings.TrimSuffix(line, "\n")
		if text, more := strings.CutPrefix(line, " "); more {
			out.WriteString(text + "\n")
			continue
		}
		if len(line) < 5 || line[4] != '-' && line[4] != ' ' || strings.Trim(line[:4], "0123456789") != "" {
			return out.String(), fmt.Errorf("unexpected line %q", line)
		}
		code, text := line[:4], line[5:]
		if code >= "8000" {
			return out.String(), errors.New(text)
		}
		out.WriteString(text + "\n")
		if line[4] == ' ' {
			return strings.TrimRight(out.String(), "\n") + "\n", nil
		}
	}
	return "", errors.New("reply is too long")
}
