package sysctl

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// maxKey bounds a key, in bytes; the longest of the kernel have about 60.
const maxKey = 256

// key is a setting's name in dotted form, where a slash stands for a dot inside
// a part. It was checked: it cannot name a file outside of the tree.
type key string

// parseKey reads the dotted or the path form. As in sysctl(8) the first
// separator tells which one it is.
func parseKey(s string) (key, error) {
	if s == "" {
		return "", errors.New("empty key")
	}
	if len(s) > maxKey {
		return "", fmt.Errorf("key longer than %d bytes", maxKey)
	}
	for _, r := range s {
		if r <= ' ' || r == 0x7f || r == '\uFFFD' {
			return "", fmt.Errorf("character %q in a key", r)
		}
	}
	if i := strings.IndexAny(s, "./"); i >= 0 && s[i] == '/' {
		s = swap(s)
	}
	for part := range strings.SplitSeq(s, ".") {
		// A part of slashes would be "." or ".." in the path.
		if strings.Trim(part, "/") == "" {
			return "", errors.New("empty part in a key")
		}
	}
	return key(s), nil
}

// path is the key's file in the tree at root.
func (k key) path(root string) string {
	return filepath.Join(root, swap(string(k)))
}

// swap exchanges dots and slashes: it turns each form into the other.
func swap(s string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, s)
}
