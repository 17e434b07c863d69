#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Checks that `make install` installs every file and that `make uninstall` removes it.
set -euo pipefail
cd "$(dirname "$0")/.."
dest=$(mktemp -d)
trap 'rm -rf "$dest"' EXIT

make -s install DESTDIR="$dest" PREFIX=/usr
for p in kubelb-load kubelb-agent kubelbctl; do
	"$dest/usr/sbin/$p" --version | grep -q "^$p [0-9]" || { echo "$p --version" >&2; exit 1; }
	"$dest/usr/sbin/$p" --help | grep -q '^Usage:' || { echo "$p --help" >&2; exit 1; }
	test -s "$dest/usr/share/man/man8/$p.8"
done
test -s "$dest/usr/share/man/man5/kubelb.yaml.5"
test -s "$dest/usr/share/man/man7/kubelb.7"
test -s "$dest/usr/share/doc/kubelb/operations.md"
test -s "$dest/usr/share/kubelb/grafana/kubelb.json"
diff -r -x '.*' deploy/ansible "$dest/usr/share/kubelb/ansible"
diff -r deploy/kubeadm "$dest/usr/share/kubelb/kubeadm"
"$dest/usr/libexec/kubelb/k8s-check.sh" --help | grep -q '^NAME'
grep -q '^ExecStart=/usr/sbin/kubelb-load --boot$' "$dest/usr/lib/systemd/system/kubelb-load.service"
grep -q '^ExecStart=/usr/sbin/kubelb-agent$' "$dest/usr/lib/systemd/system/kubelb-agent.service"
for p in kubelb-load kubelb-agent kubelbctl; do
	grep -q "^complete .* $p\b" "$dest/usr/share/bash-completion/completions/$p"
	grep -q "$p" "$dest/usr/share/fish/vendor_completions.d/$p.fish"
done
grep -q '^#compdef kubelb-load' "$dest/usr/share/zsh/site-functions/_kubelb"
make -s uninstall DESTDIR="$dest" PREFIX=/usr
left=$(find "$dest/usr" ! -type d)
[ -z "$left" ] || { echo "left behind: $left" >&2; exit 1; }

# With another prefix, the units start the programs from there.
make -s install DESTDIR="$dest" PREFIX=/opt/kubelb unitdir=/units
grep -q '^ExecStart=/opt/kubelb/sbin/kubelb-agent$' "$dest/units/kubelb-agent.service"
! grep -r /usr/sbin/ "$dest/units" || exit 1
make -s uninstall DESTDIR="$dest" PREFIX=/opt/kubelb unitdir=/units
left=$(find "$dest" ! -type d)
[ -z "$left" ] || { echo "left behind: $left" >&2; exit 1; }
