#!/usr/bin/env bash
# Makes sure that programs are installed: need.sh PROGRAM...
# Those that are missing are installed from Debian's packages, with sudo where this user is not root.
set -euo pipefail

package_of() {
    case "$1" in
        cc) echo build-essential ;;
        *) echo "$1" ;;
    esac
}

missing=()
for program in "$@"; do
    command -v "$program" > /dev/null || missing+=("$(package_of "$program")")
done
[ ${#missing[@]} -gt 0 ] || exit 0

cannot() {
    echo "error: ${missing[*]} must be installed, and $1" >&2
    echo "hint: install it by hand, on Debian and Ubuntu with: apt-get install ${missing[*]}" >&2
    exit 1
}

command -v apt-get > /dev/null || cannot "there is no apt-get here"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo > /dev/null || cannot "this user is not root and there is no sudo"
    as_root=(sudo)
    # Without a terminal nobody can type a password.
    [ -t 0 ] || as_root=(sudo --non-interactive)
fi

echo "installing ${missing[*]}" >&2
apt_get() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" < /dev/null; }
# The lists of packages may be there and current, or not there at all.
apt_get install --yes --no-install-recommends "${missing[@]}" \
    || { apt_get update && apt_get install --yes --no-install-recommends "${missing[@]}"; } \
    || cannot "apt-get could not do it (see above)"
