package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// The guest talks to the host in frames over one virtio port, so that output
// and results arrive in the order in which they were written, apart from the
// kernel's console.
const portName = "egret.vmrun"

type frameKind byte

const (
	frameStdout frameKind = 'o' // payload: bytes
	frameStderr frameKind = 'e' // payload: bytes
	frameExit   frameKind = 'x' // payload: index and exit code, 4 bytes each
	frameDone   frameKind = 'd' // the guest has run everything and synced its shares
)

// maxFrame bounds what a reader allocates for one frame.
const maxFrame = 1 << 16

type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frameWriter) write(kind frameKind, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		part := payload[:min(len(payload), maxFrame)]
		payload = payload[len(part):]
		b := make([]byte, 5, 5+len(part))
		b[0] = byte(kind)
		binary.BigEndian.PutUint32(b[1:], uint32(len(part)))
		if _, err := f.w.Write(append(b, part...)); err != nil {
			return err
		}
		if len(payload) == 0 {
			return nil
		}
	}
}

func (f *frameWriter) exit(index, code int) error {
	b := binary.BigEndian.AppendUint32(nil, uint32(index))
	return f.write(frameExit, binary.BigEndian.AppendUint32(b, uint32(code)))
}

// stream is an io.Writer whose bytes become frames of one kind.
func (f *frameWriter) stream(kind frameKind) io.Writer { return frameStream{f, kind} }

type frameStream struct {
	f    *frameWriter
	kind frameKind
}

func (s frameStream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return len(p), s.f.write(s.kind, p)
}

// result is what the frames of a run said.
type result struct {
	codes map[int]int
	done  bool
}

// readFrames copies output until the guest is done or gone. Both are no error:
// result.done tells them apart.
func readFrames(r io.Reader, stdout, stderr io.Writer) (result, error) {
	res := result{codes: map[int]int{}}
	head := make([]byte, 5)
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			return res, nil
		}
		n := binary.BigEndian.Uint32(head[1:])
		if n > maxFrame {
			return res, fmt.Errorf("frame of %d bytes from the guest", n)
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(r, payload); err != nil {
			return res, nil
		}
		switch frameKind(head[0]) {
		case frameStdout:
			if _, err := stdout.Write(payload); err != nil {
				return res, err
			}
		case frameStderr:
			if _, err := stderr.Write(payload); err != nil {
				return res, err
			}
		case frameExit:
			if n != 8 {
				return res, fmt.Errorf("exit frame of %d bytes from the guest", n)
			}
			res.codes[int(binary.BigEndian.Uint32(payload))] = int(int32(binary.BigEndian.Uint32(payload[4:])))
		case frameDone:
			res.done = true
			return res, nil
		default:
			return res, fmt.Errorf("unknown frame %q from the guest", head[0])
		}
	}
}
