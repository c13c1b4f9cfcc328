# shellcheck shell=bash
# What the scripts in this directory share. Source it after `set -euo pipefail`.

VTARGET_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VTARGET_CACHE=${VTARGET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vtarget}
VTARGET_LAB=$VTARGET_CACHE/lab
export VTARGET_ROOT VTARGET_CACHE VTARGET_LAB

# say WORDS… — tells the person what happens next.
say() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# die WORDS… — says why nothing more can be done, and stops.
die() {
	printf '%s: error: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# usage — prints the comment at the top of the script: the one place where its help is written.
usage() {
	sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"
}

# require PACKAGE COMMAND… — installs the package when the command does not succeed, if that is possible.
require() {
	local package=$1
	shift
	"$@" >/dev/null 2>&1 && return
	command -v apt-get >/dev/null || die "$package is missing (Debian's name for it); install it and run this again"
	local become=()
	if ((EUID != 0)); then
		command -v sudo >/dev/null || die "$package is missing; run 'apt-get install $package' as root and run this again"
		become=(sudo)
	fi
	say "installing $package"
	"${become[@]}" apt-get -qq update
	"${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$package" >/dev/null
}

# require_cargo — finds a Rust toolchain, or provides one where the distribution offers it.
require_cargo() {
	if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
		PATH=$HOME/.cargo/bin:$PATH
	fi
	if ! command -v cargo >/dev/null; then
		local version
		version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$VTARGET_ROOT/Cargo.toml")
		if ! command -v rustup >/dev/null; then
			apt-cache show rustup >/dev/null 2>&1 ||
				die "cargo is missing; install Rust $version or newer, for instance as https://rustup.rs says"
			require rustup command -v rustup
		fi
		say "installing Rust with rustup"
		rustup default stable || die "rustup could not install Rust; $version or newer is needed"
	fi
	# Rust's linker.
	require gcc command -v cc
	require libc6-dev test -e /usr/include/stdio.h
}

# build — builds the daemon as it is shipped. VTARGET_BINARY names a finished one instead.
build() {
	[[ -z ${VTARGET_BINARY:-} ]] || return 0
	require_cargo
	say "building the daemon (cargo build --release)"
	(cd "$VTARGET_ROOT" && cargo build --release --bin vtarget)
}
