// Command build makes the programs of package kube, and helm, or finds them in the cache,
// and prints their directories. The first time takes five to eight minutes.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/egret-router/egret/lab/kube"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, find := range []func() (kube.Binaries, error){kube.FindBinaries, kube.FindHelm} {
		binaries, err := find()
		if err == nil {
			err = binaries.Build(ctx, func(line string) { fmt.Fprintln(os.Stderr, line) })
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "build: "+err.Error())
			stop()
			os.Exit(1)
		}
		fmt.Println(binaries.Dir)
	}
}
