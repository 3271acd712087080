package sysctl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// maxValue bounds a value, in bytes: the kernel hands out a page.
const maxValue = 4096

// checkValue refuses what could not be written in one line.
func checkValue(v string) error {
	if len(v) > maxValue {
		return fmt.Errorf("value longer than %d bytes", maxValue)
	}
	if strings.ContainsAny(v, "\n\x00") {
		return errors.New("line break or NUL in a value")
	}
	return nil
}

// equalValue compares word by word: the kernel answers "4096\t131072" to "4096 131072".
func equalValue(a, b string) bool {
	return slices.Equal(strings.Fields(a), strings.Fields(b))
}

// readValue reads a setting without its line break.
func readValue(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxValue+1))
	if err != nil {
		return "", err
	}
	v := strings.TrimRight(string(b), "\n")
	if err := checkValue(v); err != nil {
		return "", fmt.Errorf("read %q: %w", path, err)
	}
	return v, nil
}

// readOnly reports that the kernel lets nobody write the setting.
func readOnly(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o222 == 0
}

// writeValue writes an existing setting in one write, as the kernel demands.
func writeValue(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n")
	return errors.Join(err, f.Close())
}
