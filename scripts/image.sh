#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Makes the container image from the files that scripts/image-root.sh has collected: an OCI archive
# that podman, skopeo and containerd can load.
#
#   scripts/image.sh ROOT[:ROOT...] ARCHIVE VERSION
#
# Several ROOTs are of as many architectures: the archive then has an image for each, as one name.
# The labels name the commit and its time. SOURCE_URL is where the source is, for who publishes it;
# default: the packages' home page. The same files and commit give the same image.
#
# Uses buildah or podman with deploy/Dockerfile, if one is installed. Otherwise, and with
# KUBELB_IMAGE_TOOL=none or several ROOTs, uses scripts/image-oci.py, which reads the same file.
#   load it:  podman load -i ARCHIVE
#             ctr -n k8s.io images import ARCHIVE
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/source.sh
. scripts/source.sh

[ $# -eq 3 ] || { echo "usage: scripts/image.sh ROOT ARCHIVE VERSION" >&2; exit 2; }
root=$1 archive=$2 version=$3
name=kubelb:$version
IFS=: read -ra roots <<<"$root"
for r in "${roots[@]}"; do
	[ -d "$r" ] || { echo "image.sh: $r is not there: run make image-root first" >&2; exit 1; }
done

tool=${KUBELB_IMAGE_TOOL:-$(command -v buildah || command -v podman || echo none)}
rm -f "$archive"
SOURCE_DATE_EPOCH=$(source_time)
export SOURCE_DATE_EPOCH
# What deploy/Dockerfile takes.
arguments=(
	"VERSION=$version"
	"REVISION=$(source_commit)"
	"CREATED=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)"
	"SOURCE=${SOURCE_URL:-$(sed -n 's/^Homepage: //p' deploy/debian/control)}"
)
if [ "$tool" = none ] || [ ${#roots[@]} -gt 1 ]; then
	exec python3 scripts/image-oci.py deploy/Dockerfile "$root" "$archive" "${arguments[@]}"
fi

# A separate storage of plain folders: works for root on any system, and leaves other images alone.
storage=$(mktemp -d)
trap 'rm -rf "$storage"' EXIT
engine() { "$tool" --storage-driver vfs --root "$storage/root" --runroot "$storage/run" "$@"; }
# The program says what it runs on; the engine would take this machine's.
arch=amd64
! LC_ALL=C readelf -h "$root/usr/sbin/kubelb-agent" | grep -q 'Machine: *AArch64' || arch=arm64
isolation=()
case $tool in *buildah) isolation=(--isolation chroot) ;; esac
engine build "${isolation[@]}" --arch "$arch" --quiet --timestamp "$SOURCE_DATE_EPOCH" "${arguments[@]/#/--build-arg=}" \
	-f deploy/Dockerfile -t "$name" "$root" >/dev/null
engine push --quiet "$name" "oci-archive:$archive:docker.io/library/$name"
echo "$archive: $(stat -c %s "$archive") bytes, by $(basename "$tool")"
