#!/usr/bin/env bash
# Runs the topology with the real containerlab inside a VM and checks the
# outcome; all arguments go to the program (see its doc.go). Root is needed only
# to install missing packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ -n ${EGRET_DEPS_DONE:-} ]] || ./lab/deps.sh containerlab
export PATH="$PWD/.cache/bin:$PATH:/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin"
exec go run ./containerlab/run "$@"
