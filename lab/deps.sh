#!/usr/bin/env bash
# deps.sh GROUP...: makes sure that this machine has what the groups need.
#
#   build         Go (see go.mod), git, make
#   test          build + what the labs run: nft, ip, FRR, BIRD, a VM with its kernel
#   demo          the same as test
#   bench         test + iptables, to compare with
#   containerlab  test + Docker, whose daemon runs inside the VM only
#
# As root it installs what is missing with apt-get and leaves no service
# running or enabled that it brought. Otherwise it prints one apt-get line and
# exits 1. With nothing to do it is silent and takes a few milliseconds.
#
# A go that is not in PATH, or that must fetch the toolchain first, gets a
# wrapper in .cache/bin, which the Makefile puts first in PATH.
#
#   EGRET_DEPS_INSTALL=0   only say what is missing, also as root
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
shims=$top/.cache/bin
toolchain=go1.26.8 # what an older go fetches; at least go.mod's version
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin

# A need is "what|package": a program in PATH, an absolute file name, or one of
# the checks below. Alternatives are not looked for: a machine that is not
# Debian passes when the things themselves are there.
base=("git|git" "make|make" "certificates|ca-certificates")
run=("ip|iproute2" "nft|nftables" "conntrack|conntrack" "ping|iputils-ping" "modprobe|kmod"
  "/usr/lib/frr/bgpd|frr" "vtysh|frr" "bird|bird2" "birdc|bird2" "exabgp|exabgp" "busybox|busybox-static")
vm=("qemu-system-x86_64|qemu-system-x86" "kernel|linux-image-amd64" "xz|xz-utils")
container=("dockerd|docker.io" "docker|docker.io" "containerd|containerd" "runc|runc" "iptables|iptables")

# The units that these packages bring and enable.
units=(frr.service bird.service exabgp.service docker.service docker.socket containerd.service nftables.service conntrackd.service)

say() { echo "deps: $*" >&2; }
die() { say "$*"; exit 1; }

have() {
  case $1 in
    certificates) [[ -s /etc/ssl/certs/ca-certificates.crt || -d /etc/pki/tls/certs ]] ;;
    kernel) have_kernel ;;
    /*) [[ -e $1 ]] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# have_kernel looks for an installed kernel that can be booted and has VRFs.
have_kernel() {
  local image
  for image in /boot/vmlinuz-*; do
    [[ -r $image ]] && compgen -G "/lib/modules/${image#/boot/vmlinuz-}/kernel/drivers/net/vrf.ko*" >/dev/null && return 0
  done
  return 1
}

# missing prints the packages of the unmet needs, one per line.
missing() {
  local need
  for need in "$@"; do
    have "${need%%|*}" || echo "${need#*|}"
  done | sort -u
}

# --- apt ------------------------------------------------------------------

apt_get() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
    -o Acquire::http::Timeout=60 -o Dpkg::Use-Pty=0 "$@" </dev/null >&2
}

candidates() {
  local package
  for package in "$@"; do
    [[ -n $(apt-cache show --no-all-versions "$package" 2>/dev/null | head -n 1) ]] || return 1
  done
}

# install gets packages. Package lists are refreshed only when a package is not
# in them, or when the first attempt failed (an outdated list).
install() {
  local attempt
  say "installing: $*"
  candidates "$@" || apt_get update || true
  for attempt in 1 2 3; do
    apt_get install -y --no-install-recommends "$@" && return 0
    say "apt-get install failed (attempt $attempt of 3)"
    [[ $attempt == 3 ]] || { sleep $((attempt * 5)); apt_get update || true; }
  done
  die "could not install: $*"
}

# guarded runs a command while no package may start a service, and disables
# afterwards the units that were not there before. It removes their links itself,
# as systemctl disable does, since a container may have no systemctl.
guarded() {
  local guard=/usr/sbin/policy-rc.d unit new=()
  for unit in "${units[@]}"; do
    [[ -e /lib/systemd/system/$unit ]] || new+=("$unit")
  done
  if [[ ! -e $guard ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$guard"
    chmod 755 "$guard"
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  "$@"
  for unit in "${new[@]}"; do
    rm -f /etc/systemd/system/*.wants/"$unit"
  done
}

may_install() { [[ $EUID == 0 && ${EGRET_DEPS_INSTALL:-1} != 0 ]] && command -v apt-get >/dev/null; }

# --- Go -------------------------------------------------------------------

# version_of prints the version of a go program, without fetching a toolchain.
version_of() { GOTOOLCHAIN=local GOFLAGS='' "$1" version 2>/dev/null | sed -nE 's/.* go([0-9]+(\.[0-9]+)*).*/\1/p'; }

# at_least GO VERSION: the program is of that version or newer.
at_least() {
  local version
  version=$(version_of "$1") && [[ -n $version && $(printf '%s\n' "$2" "$version" | sort -V | head -n 1) == "$2" ]]
}

wanted() { sed -nE 's/^go ([0-9.]+)$/\1/p' "$top/go.mod"; }

go_places() {
  PATH=${PATH//$shims:/} command -v go || true
  compgen -G '/usr/local/go/bin/go' || true
  compgen -G "$HOME/go/bin/go" || true
  compgen -G "$HOME/sdk/go1.*/bin/go" | sort -Vr || true
  compgen -G '/usr/lib/go-1.*/bin/go' | sort -Vr || true
}

# find_go prints a go that is new enough, else one that can fetch such a one.
find_go() {
  local version place
  for version in "$(wanted)" 1.21; do
    while read -r place; do
      at_least "$place" "$version" && { echo "$place"; return 0; }
    done < <(go_places)
  done
  return 1
}

# use_go makes "go" mean the given program: a wrapper where PATH alone does not.
use_go() {
  local env=''
  at_least "$1" "$(wanted)" || env="GOTOOLCHAIN=$toolchain "
  if [[ -z $env && $(PATH=${PATH//$shims:/} command -v go || true) == "$1" && $1 != /usr/local/bin/go ]]; then
    rm -f "$shims/go"
    return
  fi
  local text
  text=$(printf '#!/bin/sh\n%sexec %q "$@"' "${env:+export ${env% }; }" "$1")
  [[ -x $shims/go && $(<"$shims/go") == "$text" ]] && return
  mkdir -p "$shims"
  printf '%s\n' "$text" >"$shims/go.$$"
  chmod 755 "$shims/go.$$"
  mv "$shims/go.$$" "$shims/go"
  say "using $1${env:+ with ${env% }} (wrapper $shims/go)"
}

# install_go takes Debian's own Go: of the release, else of its backports,
# whose package lists are used for this one command and kept nowhere.
install_go() {
  candidates golang-go || apt_get update || true
  if [[ $(apt-cache show --no-all-versions golang-go 2>/dev/null) =~ Version:\ 2:1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 21)); then
    install golang-go
    return
  fi
  local release lists
  # shellcheck source=/dev/null
  release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  lists=$(mktemp -d)
  chmod 755 "$lists"
  mkdir -p "$lists/state/partial"
  {
    cat /etc/apt/sources.list 2>/dev/null || true
    echo "deb http://deb.debian.org/debian $release-backports main"
  } >"$lists/all.list"
  local options=(-o "Dir::Etc::sourcelist=$lists/all.list" -o "Dir::State::lists=$lists/state")
  local attempt package
  for attempt in 1 2 3; do
    apt_get "${options[@]}" update || true
    package=$(apt-cache "${options[@]}" search --names-only '^golang-1\.[0-9]+-go$' | awk '{print $1}' | sort -V | tail -n 1)
    say "installing: ${package:-no Go package found}"
    [[ -n $package ]] && apt_get "${options[@]}" install -y --no-install-recommends "$package" && break
    [[ $attempt == 3 ]] || sleep $((attempt * 5))
  done
  rm -rf "$lists"
}

ensure_go() {
  local go
  if ! go=$(find_go); then
    may_install || die "no Go >= 1.21 found. Install Go $(wanted) or newer from https://go.dev/dl/ to /usr/local/go"
    locked install_go
    go=$(find_go) || die "no Go >= 1.21 found, and Debian's packages gave none. Install Go $(wanted) or newer from https://go.dev/dl/ to /usr/local/go"
  fi
  use_go "$go"
}

# --- the groups -----------------------------------------------------------

# locked runs a command as the only deps.sh of this machine, services guarded.
locked() {
  exec 9>/run/egret-deps.lock
  flock -w 600 9 || die "another deps.sh is still installing"
  guarded "$@"
  exec 9>&-
}

main() {
  [[ $# -gt 0 ]] || die "usage: lab/deps.sh build|test|demo|bench|containerlab..."
  local needs=("${base[@]}") group packages
  for group in "$@"; do
    case $group in
      build) ;;
      test | demo) needs+=("${run[@]}" "${vm[@]}") ;;
      bench) needs+=("${run[@]}" "${vm[@]}" "iptables|iptables") ;;
      containerlab) needs+=("${run[@]}" "${vm[@]}" "${container[@]}") ;;
      *) die "unknown group \"$group\": build, test, demo, bench or containerlab" ;;
    esac
  done
  mapfile -t packages < <(missing "${needs[@]}")
  if ((${#packages[@]})); then
    may_install || die "missing on this machine; as root: apt-get install -y --no-install-recommends ${packages[*]}"
    locked install "${packages[@]}"
    mapfile -t packages < <(missing "${needs[@]}")
    ((${#packages[@]} == 0)) || die "installed, and still missing: ${packages[*]}"
  fi
  ensure_go
}

main "$@"
