#!/usr/bin/env bash
# Fetch CRIU with what it needs into a folder, with apt's own tools, from the mirror that this machine's apt uses.
# The system's packages stay as they are: the folder's `criu` calls its own loader with its own libraries.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
release=${2:-trixie}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mirror=$({ grep -hoE '(https?|file)://[^ ]*/debian/?( |$)' -r /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null || true; } | awk 'NR == 1 {print $1}')
mkdir -p "$work"/{lists/partial,cache/archives/partial,debs}
touch "$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:?no mirror of Debian in the sources of apt} $release main" > "$work/sources.list"
apt=(-qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$work/lists"
    -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
apt-get "${apt[@]}" update
packages=$(apt-get "${apt[@]}" install -s --no-install-recommends criu | awk '/^Inst/ {print $2}')
(cd "$work/debs" && apt-get "${apt[@]}" download $packages)
rm -rf "$folder/root" && mkdir "$folder/root"
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$folder/root"; done
libraries="$folder/root/usr/lib/$(dpkg-architecture -q DEB_HOST_MULTIARCH 2>/dev/null || echo "$(uname -m)-linux-gnu")"
loader=$(find "$libraries" -name 'ld-linux*' | head -1)
printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' "$loader" "$libraries" "$folder/root/usr/sbin/criu" > "$folder/criu.new"
chmod 755 "$folder/criu.new"
"$folder/criu.new" --version
mv "$folder/criu.new" "$folder/criu"
