package kube

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/egret-router/egret/lab"
)

const (
	// readyTimeout is for the start of a server: 3 s here, many times that in an emulated machine.
	readyTimeout = 3 * time.Minute
	// commandTimeout bounds one kubectl.
	commandTimeout = time.Minute
)

// Options say where a server runs. The zero Options mean this machine's loopback.
type Options struct {
	// Namespace of a lab; nil for this machine.
	Namespace *lab.NS
	// Address that the API server listens on, 127.0.0.1 unless set.
	Address string
}

// A Server is an API server with its etcd.
type Server struct {
	// URL and Token are for clients that act as administrator, CA is the certificate to trust.
	URL   string
	Token string
	CA    []byte

	binaries  Binaries
	place     place
	dir       string
	address   string // with port
	etcdURL   string
	etcd, api process
	killed    bool // the API server, and not started again
}

// New starts a server that is stopped when the test ends; if the test failed, the end of its log is logged.
func New(tb testing.TB, options Options) *Server {
	tb.Helper()
	s, err := Start(context.WithoutCancel(tb.Context()), Require(tb), tb.TempDir(), options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("kube-apiserver: %s", s.Log(5))
		}
		if err := s.Close(); err != nil {
			tb.Errorf("stop API server: %v", err)
		}
	})
	return s
}

// Start starts a server with its files in dir and waits until it is ready. Close ends it.
func Start(ctx context.Context, binaries Binaries, dir string, options Options) (*Server, error) {
	address := options.Address
	if address == "" {
		address = "127.0.0.1"
	}
	ip := net.ParseIP(address)
	if ip == nil {
		return nil, fmt.Errorf("start API server: %q is no address", address)
	}
	keys, err := writeSecrets(dir, ip)
	if err != nil {
		return nil, fmt.Errorf("start API server: write keys: %w", err)
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, fmt.Errorf("start API server: %w", err)
	}
	s := &Server{binaries: binaries, dir: dir, CA: keys.cert, Token: keys.adminToken,
		address: net.JoinHostPort(address, strconv.Itoa(ports[0])),
		etcdURL: "http://127.0.0.1:" + strconv.Itoa(ports[1])}
	s.URL = "https://" + s.address
	if options.Namespace != nil {
		s.place = inside{options.Namespace}
	} else {
		s.place = newHere(dir)
	}
	peers := "http://127.0.0.1:" + strconv.Itoa(ports[2])
	s.etcd, err = s.place.start("etcd", binaries.Path("etcd"), "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls="+s.etcdURL, "--advertise-client-urls="+s.etcdURL,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers, "--initial-cluster=default="+peers)
	if err == nil {
		err = s.writeKubeconfig("admin", s.Token)
	}
	if err == nil {
		err = s.StartAPI(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start API server: %w", err), s.Close())
	}
	return s, nil
}

// StartAPI starts the API server alone, after StopAPI or KillAPI, at its old
// address, and waits until it is ready.
func (s *Server) StartAPI(ctx context.Context) (err error) {
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	file := func(name string) string { return filepath.Join(s.dir, name) }
	s.killed = false
	s.api, err = s.place.start("kube-apiserver", s.binaries.Path("kube-apiserver"),
		"--etcd-servers="+s.etcdURL,
		"--bind-address="+host, "--secure-port="+port, "--advertise-address="+host,
		"--endpoint-reconciler-type=none", // an address on the loopback is refused there
		"--tls-cert-file="+file("tls.crt"), "--tls-private-key-file="+file("tls.key"),
		"--token-auth-file="+file("tokens.csv"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-signing-key-file="+file("accounts.key"), "--service-account-key-file="+file("accounts.key"),
		"--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
		"--disable-admission-plugins=ServiceAccount", // pods without a service account: nothing makes those
		"--allow-privileged=true", "--profiling=false", "--shutdown-delay-duration=0s")
	if err != nil {
		return err
	}
	return lab.Poll(ctx, readyTimeout, "the API server", func() error {
		if !s.api.Running() || !s.etcd.Running() {
			return lab.Final(fmt.Errorf("a process ended:\n%s", s.Log(30)))
		}
		return s.ready()
	})
}

// ready asks the server over a connection from where it runs.
func (s *Server) ready() error {
	conn, err := s.Dial(context.Background(), "tcp", s.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA)
	host, _, _ := net.SplitHostPort(s.address)
	secure := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: host})
	request, err := http.NewRequest(http.MethodGet, s.URL+"/readyz", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+s.Token)
	if err := request.Write(secure); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(secure), request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if body, _ := io.ReadAll(io.LimitReader(answer.Body, 4096)); answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", answer.Status, body)
	}
	return nil
}

// Dial connects from where the server runs. The network is always tcp.
func (s *Server) Dial(_ context.Context, _, address string) (net.Conn, error) {
	return s.place.dial(address)
}

// StopAPI ends the API server; etcd goes on.
func (s *Server) StopAPI() error { return s.api.Stop() }

// KillAPI ends the API server with SIGKILL, until StartAPI.
func (s *Server) KillAPI() {
	s.api.Kill9()
	s.killed = true
}

// Close ends the API server, then etcd: without etcd the other would not end.
func (s *Server) Close() error {
	var errs []error
	for _, p := range []process{s.api, s.etcd} {
		if p != nil && !(s.killed && p == s.api) {
			errs = append(errs, p.Stop())
		}
	}
	s.place.close()
	return errors.Join(errs...)
}

// Log is the last lines of both logs.
func (s *Server) Log(lines int) string {
	var all []string
	for _, p := range []process{s.etcd, s.api} {
		if p != nil {
			text := strings.Split(strings.TrimSpace(p.Log()), "\n")
			all = append(all, text[max(0, len(text)-lines):]...)
		}
	}
	return strings.Join(all, "\n")
}

// Kubeconfig is the administrator's, or that of an account of AddAccount.
func (s *Server) Kubeconfig(user string) string { return filepath.Join(s.dir, user+".kubeconfig") }

// AddAccount writes the kubeconfig of a service account, which must exist.
// Its name is NAMESPACE-NAME.
func (s *Server) AddAccount(namespace, name string) (user string, err error) {
	token, err := s.Kubectl("create", "token", name, "--namespace="+namespace, "--duration=24h")
	if err != nil {
		return "", err
	}
	user = namespace + "-" + name
	return user, s.writeKubeconfig(user, strings.TrimSpace(token))
}

func (s *Server) writeKubeconfig(user, token string) error {
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: user, user: {token: %q}}]
contexts: [{name: lab, context: {cluster: lab, user: user}}]
current-context: lab
`, s.URL, base64.StdEncoding.EncodeToString(s.CA), token)
	return os.WriteFile(s.Kubeconfig(user), []byte(text), 0o600)
}

// Kubectl runs kubectl as administrator, and returns its standard output.
func (s *Server) Kubectl(args ...string) (string, error) { return s.KubectlAs("admin", "", args...) }

// Apply creates or changes what the YAML text says; with fields that the schema does not know, it fails.
func (s *Server) Apply(text string) error {
	_, err := s.KubectlAs("admin", text, "apply", "--validate=strict", "--filename=-")
	return err
}

// KubectlAs runs kubectl as a user with some standard input.
func (s *Server) KubectlAs(user, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	words := []string{s.binaries.Path("kubectl"), "--kubeconfig=" + s.Kubeconfig(user), "--cache-dir=" + filepath.Join(s.dir, "kubectl-cache")}
	return s.place.run(ctx, stdin, append(words, args...)...)
}

// Eventually is lab.Eventually, for tests that use no other part of the lab.
func Eventually(tb testing.TB, deadline time.Duration, what string, check func() error) {
	tb.Helper()
	lab.Eventually(tb, deadline, what, check)
}

// freePorts finds TCP ports that are free at this moment.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all of them at the end, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
