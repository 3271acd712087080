package probes

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// maxCAFile bounds a file of certificates, in bytes.
const maxCAFile = 1 << 20

// authorities are the certificates of a file, read again when it changed.
type authorities struct {
	pool     *x509.CertPool
	modified time.Time
	size     int64
}

// load reports whether the file is another one than last time. A file that
// cannot be read is an error each time: the probe fails closed.
func (a *authorities) load(name string) (bool, error) {
	info, err := os.Stat(name)
	if err != nil {
		return false, fmt.Errorf("read CA file: %w", err)
	}
	if a.pool != nil && info.ModTime().Equal(a.modified) && info.Size() == a.size {
		return false, nil
	}
	pool, err := readPool(name)
	if err != nil {
		return false, fmt.Errorf("read CA file %q: %w", name, err)
	}
	*a = authorities{pool: pool, modified: info.ModTime(), size: info.Size()}
	return true, nil
}

func readPool(name string) (*x509.CertPool, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCAFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxCAFile {
		return nil, fmt.Errorf("larger than %d bytes", maxCAFile)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, errors.New("no certificate in it")
	}
	return pool, nil
}

// trust brings the certificates up to date. Attempts at a target follow one
// another, so that nobody uses the transport meanwhile.
func (a *httpAttempt) trust() error {
	if a.config.CAFile == "" {
		return nil
	}
	changed, err := a.ca.load(a.config.CAFile)
	if changed {
		t := a.transport.Clone()
		t.TLSClientConfig.RootCAs = a.ca.pool
		a.transport = t
	}
	return err
}
