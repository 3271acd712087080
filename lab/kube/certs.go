package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// secrets are the server's own: a certificate that clients are told to trust,
// the key that service accounts' tokens are signed with, and the administrator's token.
type secrets struct {
	cert       []byte // PEM, self-signed
	adminToken string
}

// writeSecrets makes them anew, as files of dir, for a server at address.
func writeSecrets(dir string, address net.IP) (secrets, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return secrets{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "kube-apiserver"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(30 * 24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:           []net.IP{address},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return secrets{}, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return secrets{}, err
	}
	token := make([]byte, 16)
	if _, err := rand.Read(token); err != nil {
		return secrets{}, err
	}
	s := secrets{cert: cert, adminToken: hex.EncodeToString(token)}
	return s, errors.Join(
		os.WriteFile(filepath.Join(dir, "tls.crt"), cert, 0o600),
		writeKey(filepath.Join(dir, "tls.key"), key),
		writeKey(filepath.Join(dir, "accounts.key"), accounts),
		os.WriteFile(filepath.Join(dir, "tokens.csv"), fmt.Appendf(nil, "%s,admin,admin,system:masters\n", s.adminToken), 0o600))
}

func writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}
