#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Boots Debian's kernels in virtual machines and checks the data path on each.
#
#   scripts/vmtest.sh [KERNEL...]    KERNEL is a series, 6.1 or 6.12 (default: both)
#
# A kernel is the newest package of its series that the host's own Debian mirror has;
# it is unpacked below build/vm, never installed, and kept there: remove the directory
# to get newer ones. The machine is an emulated one unless the host can do better; it
# has no disk and no network, and runs tests/vm/init.
#
# Prints one line per kernel: `ok vm RELEASE`, `FAIL vm RELEASE: why`, or `SKIPPED vm
# SERIES: why`. Exit status: 0 all that ran passed, 1 something failed, 2 the command
# line is wrong, 77 nothing could run. VM_SECONDS (180) is what one machine may take.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

# What the checks need of what these kernels keep in modules.
modules=(veth tcp_diag)
programs=(build/kubelb-load build/kubelbctl build/test/guest)
vm=$PWD/build/vm

die() {
	echo "vmtest.sh: $1" >&2
	exit "${2:-1}"
}

usage() {
	sed -n '3,15s/^# \{0,1\}//p' "$0"
}

# --- which kernel -------------------------------------------------------------------

# The host's Debian mirrors, with backports. Lists of our own: those of the host may be
# old or empty, and are not ours to renew.
apt_prepare() {
	local codename keys=/usr/share/keyrings/debian-archive-keyring.gpg signed=
	codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	[ -e $keys ] && signed="[signed-by=$keys]"
	mkdir -p "$vm"/apt/{lists,cache}/partial
	# The names in it are apt's to fill in.
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v codename="$codename" -v signed="$signed" '
			codename == "" || $3 != "main" { next }
			$2 == codename { print "deb", signed, $1, $2 "-backports main" }
			$2 == codename || index($2, codename "-") == 1 { print "deb", signed, $1, $2, "main" }
		' | sort -u >"$vm/apt/sources.list"
	cat >"$vm/apt/apt.conf" <<-CONF
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
		#clear DPkg::Post-Invoke;
		APT::Sandbox::User "root";
		Acquire::Retries "2";
		Acquire::http::Timeout "30";
		Acquire::Languages "none";
		Dir::Cache "$vm/apt/cache";
		Dir::State::Lists "$vm/apt/lists";
		Dir::Etc::SourceList "$vm/apt/sources.list";
		Dir::Etc::SourceParts "/dev/null";
	CONF
	[ -s "$vm/apt/sources.list" ]
}

# Once for all kernels of a run.
apt_updated=
apt_update() {
	[ -n "$apt_updated" ] && return
	apt_updated=yes
	# Its status is of no use: a suite that the mirror does not have is no reason to stop.
	timeout 300 apt-get -c "$vm/apt/apt.conf" -q update >"$vm/apt/log" 2>&1
	return 0
}

# What apt said last of what went wrong. (Its summary names nothing.)
apt_complaint() {
	grep '^[EW]:' "$vm/apt/log" | grep -v 'Some index files' | tail -n 1
}

# The package that the meta-packages stand for: its name changes with the kernel's ABI.
kernel_package() {
	apt-cache -c "$vm/apt/apt.conf" show linux-image-cloud-amd64 "linux-image-$1-cloud-amd64" 2>/dev/null |
		sed -n 's/^Depends: \(linux-image-[^ ]*\).*/\1/p' |
		grep -F "linux-image-$1." | sort -V | tail -n 1
}

# kernel_unpack DEB DIRECTORY: the directory is there when it is complete.
kernel_unpack() {
	local part=$2.part release
	rm -rf "$part"
	mkdir -p "$part" || return
	dpkg-deb --fsys-tarfile "$1" | tar -x -C "$part" ./boot ./lib/modules || return
	release=$(basename "$part"/lib/modules/*)
	depmod -b "$part" "$release" || return
	echo "$release" >"$part/release"
	mv "$part" "$2"
}

# kernel_fetch SERIES: makes build/vm/SERIES, or prints why that cannot be.
kernel_fetch() {
	local package dir=$vm/download
	apt_prepare || { echo "apt has no Debian mirror among its sources"; return 1; }
	apt_update
	package=$(kernel_package "$1")
	if [ -z "$package" ]; then
		echo "no linux-image of $1 at $(awk '{ print $(NF - 1) }' "$vm/apt/sources.list" | xargs):" \
			"$(apt_complaint | grep . || echo "not in the lists")"
		return 1
	fi
	rm -rf "$dir"
	mkdir -p "$dir"
	if ! (cd "$dir" && timeout 600 apt-get -c "$vm/apt/apt.conf" -q download "$package") >"$vm/apt/log" 2>&1; then
		echo "cannot download $package: $(apt_complaint)"
		return 1
	fi
	if ! kernel_unpack "$dir"/*.deb "$vm/$1" >"$vm/apt/log" 2>&1; then
		echo "cannot unpack $package: $(tail -n 1 "$vm/apt/log")"
		return 1
	fi
	rm -rf "$dir"
}

# --- what it boots ------------------------------------------------------------------

# initramfs_add ROOT PROGRAM [PATH]: a program, with the libraries that it names.
initramfs_add() {
	local root=$1 program=$2 library
	install -D "$program" "$root${3:-$program}" || return
	# Nothing for a static program.
	for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*'); do
		[ -e "$root$library" ] || install -D "$library" "$root$library" || return
	done
}

# In the order in which they must be loaded.
initramfs_add_modules() {
	local root=$1 kernel=$2 release=$3 module path name
	mkdir -p "$root/modules"
	for module in "${modules[@]}"; do
		modprobe -d "$kernel" -S "$release" --show-depends "$module" || return
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$root/modules/paths" || return
	while read -r path; do
		name=$(basename "${path%.xz}")
		case $path in
		*.xz) xz -dc "$path" >"$root/modules/$name" ;;
		*) cp "$path" "$root/modules/$name" ;;
		esac || return
		echo "$name" >>"$root/modules/order"
	done <"$root/modules/paths"
	[ -s "$root/modules/order" ]
}

# initramfs_make KERNEL RELEASE FILE
initramfs_make() {
	local root program
	root=$work/root
	rm -rf "$root"
	mkdir -p "$root"/{dev,proc,sys,tmp,run,etc} || return
	install -D tests/vm/init "$root/init" || return
	install -D -m 644 tests/verifier.budget "$root/verifier.budget" || return
	initramfs_add "$root" "$(command -v busybox)" /bin/busybox || return
	initramfs_add "$root" "$(command -v bpftool)" /usr/sbin/bpftool || return
	initramfs_add "$root" "$(command -v ip)" /usr/sbin/ip || return
	for program in "${programs[@]}"; do
		initramfs_add "$root" "$program" "/kubelb/${program##*/}" || return
	done
	initramfs_add_modules "$root" "$1" "$2" || return
	(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$3"
}

# --- the machine --------------------------------------------------------------------

accelerator() {
	if grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo && [ -w /dev/kvm ]; then
		echo "-accel kvm -cpu host"
	else
		echo "-accel tcg -cpu max"
	fi
}

# vm_boot KERNEL-IMAGE INITRAMFS: the serial ports go to $work/console and
# $work/verdicts. Returns 124 when the machine had to be ended.
vm_boot() {
	local status
	# shellcheck disable=SC2046
	timeout -k 5 "${VM_SECONDS:-180}" qemu-system-x86_64 $(accelerator) -smp 2 -m 512 \
		-nodefaults -no-user-config -display none -no-reboot \
		-serial "file:$work/console" -serial "file:$work/verdicts" \
		-kernel "$1" -initrd "$2" \
		-append "console=ttyS0 rdinit=/init panic=-1 oops=panic" </dev/null >"$work/qemu" 2>&1 &
	qemu=$!
	wait "$qemu"
	status=$?
	qemu=
	return $status
}

# vm_judge STATUS: prints why the machine is not to be called good, if so.
vm_judge() {
	local bad good end
	bad=$(grep -c '^FAIL ' "$work/verdicts")
	good=$(grep -c '^ok ' "$work/verdicts")
	end=$(sed -n 's/^end //p' "$work/verdicts")
	if [ "$1" -eq 124 ]; then
		echo "hung, ended after ${VM_SECONDS:-180} s and $((good + bad)) checks"
	elif [ "$bad" -gt 0 ]; then
		echo "$bad of $((good + bad)) checks failed"
	elif [ "$1" -ne 0 ]; then
		echo "qemu: exit $1: $(tail -n 1 "$work/qemu")"
	elif [ -z "$end" ]; then
		echo "stopped before the end of its checks"
	elif [ "$good" -eq 0 ] || [ "$good" -ne "$end" ]; then
		echo "$good verdicts of $end checks"
	fi
}

# vm_run SERIES: 0 passed, 1 failed, 77 skipped.
vm_run() {
	local kernel=$vm/$1 release why status started=$SECONDS
	if [ ! -e "$kernel/release" ] && ! why=$(kernel_fetch "$1"); then
		echo "SKIPPED vm $1: $why"
		return 77
	fi
	release=$(cat "$kernel/release")
	if ! initramfs_make "$kernel" "$release" "$work/initramfs" 2>"$work/log"; then
		echo "FAIL vm $release: no initramfs: $(tail -n 1 "$work/log")"
		return 1
	fi
	rm -f "$work/console" "$work/verdicts"
	touch "$work/console" "$work/verdicts"
	vm_boot "$kernel/boot/vmlinuz-$release" "$work/initramfs"
	status=$?
	# A terminal's line ends.
	sed -i 's/\r$//' "$work/console" "$work/verdicts"
	cp "$work/console" "$kernel/console.log"
	why=$(vm_judge $status)
	grep -vE '^(end|kernel) ' "$work/verdicts" | sed 's/^/   /'
	if [ -n "$why" ]; then
		echo "FAIL vm $release: $why; its console, whole in ${kernel#"$PWD/"}/console.log, ends:"
		tail -n 40 "$kernel/console.log" | sed 's/^/   | /'
		return 1
	fi
	echo "ok vm $release ($(grep -c '^ok ' "$work/verdicts") checks, $((SECONDS - started)) s)"
}

end() {
	[ -n "$qemu" ] && kill "$qemu" 2>/dev/null
	rm -rf "$work"
}

# Prints the tools that are missing.
missing_tools() {
	local tool
	for tool in qemu-system-x86_64 busybox cpio modprobe depmod bpftool ip xz dpkg-deb apt-get; do
		command -v "$tool" >/dev/null || echo "$tool"
	done
}

main() {
	local series why ran=0 failed=0 status
	case ${1:-} in
	-h | --help) usage; exit 0 ;;
	esac
	for series in "$@"; do
		[[ $series =~ ^[0-9]+\.[0-9]+$ ]] || die "'$series': want a kernel series such as 6.1; see --help" 2
	done
	[[ ${VM_SECONDS:-180} =~ ^[1-9][0-9]*$ ]] || die "VM_SECONDS=$VM_SECONDS: want a number of seconds" 2
	[ $# -gt 0 ] || set -- 6.1 6.12
	if [ "$(uname -m)" != x86_64 ]; then
		why="written for x86_64, this is $(uname -m)"
	else
		why=$(missing_tools | xargs)
		[ -z "$why" ] || why="not installed: $why (scripts/deps.sh installs them)"
	fi
	if [ -n "$why" ]; then
		printf "SKIPPED vm %s: $why\n" "$@"
		exit 77
	fi
	make -s -j"$(nproc)" all build/test/guest || die "cannot build what goes into the machine"
	mkdir -p "$vm" || die "cannot make $vm"
	work=$(mktemp -d "$vm/run.XXXXXX") || die "cannot write to $vm"
	qemu=
	trap end EXIT
	trap 'exit 130' INT TERM
	for series in "$@"; do
		vm_run "$series"
		status=$?
		[ $status -eq 77 ] && continue
		ran=$((ran + 1))
		[ $status -eq 0 ] || failed=$((failed + 1))
	done
	[ $failed -eq 0 ] || exit 1
	[ $ran -gt 0 ] || exit 77
}

PATH=$PATH:/usr/sbin:/sbin
main "$@"
