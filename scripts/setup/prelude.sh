# shellcheck shell=bash
# shellcheck disable=SC2034  # the steps that source this use them
# Shell ground that every set-up step stands on; sourced, never run.
# A step prints one line when it has to do something and nothing but "ok" when it has not.

set -euo pipefail
export LC_ALL=C.UTF-8

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/lns"
step=$(basename "$0")

say() { printf 'setup %-15s %s\n' "$step" "$*"; }

# fail WHAT WHY WAY-OUT: the three lines every lns error has.
fail() {
    printf 'setup %-15s failed: %s\n' "$step" "$1" >&2
    shift
    printf '                      %s\n' "$@" >&2
    exit 1
}

# Runs a command as root: as it is for root, through sudo otherwise.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "needs root for: $*" "you are not root and sudo is not installed" "run this step as root"
    fi
}

# A new machine has no lists of packages, an old one has lists of what is gone.
refresh_package_lists() { as_root apt-get -q -o DPkg::Lock::Timeout=300 update; }

# Downloads Debian packages into an existing directory, without installing them and without root.
download_debs() {
    local directory=$1
    shift
    local download=(apt-get -q -o APT::Sandbox::User=root download "$@")
    (cd "$directory" && "${download[@]}" >/dev/null 2>&1) ||
        { refresh_package_lists && cd "$directory" && "${download[@]}"; } >/dev/null ||
        fail "could not download $*" "apt-get download said why above" \
            "run apt-get update, then this step again"
}
