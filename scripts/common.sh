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

# build — builds the daemon as it is shipped. VTARGET_BINARY names a finished one instead.
build() {
	[[ -z ${VTARGET_BINARY:-} ]] || return 0
	if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
		PATH=$HOME/.cargo/bin:$PATH
	fi
	command -v cargo >/dev/null || die "cargo is missing. Install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' \
		"$VTARGET_ROOT/Cargo.toml") or newer: 'apt-get install rustup && rustup default stable' on Debian 13, or see rustup.rs"
	say "building the daemon (cargo build --release)"
	(cd "$VTARGET_ROOT" && cargo build --release --bin vtarget)
}
