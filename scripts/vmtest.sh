#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-2-Clause
# Boots Debian's kernels in virtual machines and checks the data path on each.
#
#   scripts/vmtest.sh [KERNEL...]    default: 6.1-arm64 5.10 6.1 6.12 newest 6.12-lockdown
#
# KERNEL is a series, or `newest` for the kernel of Debian unstable. With -arm64 it is arm64's, always
# emulated, with programs that are built for it here. With -lockdown it boots with
# lockdown=confidentiality. The package is the newest one of its series on the host's Debian mirror
# (5.10 is in Debian 11). It is unpacked below build/vm, is never installed, and stays there: remove
# the directory to get a newer one. The machine is emulated if the host has no virtualisation. It
# has no disk and no network, and runs tests/vm/init. Two machines run at the same time.
#
# Prints one line for each kernel: `ok vm RELEASE`, `FAIL vm RELEASE: why`, or `SKIPPED vm
# KERNEL: why`. RELEASE is followed by the boot options. Exit status: 0 all kernels that ran have
# passed, 1 one has failed, 2 the command line is wrong, 77 none could run. VM_SECONDS (400) limits
# the time of one machine, VM_JOBS (2) their number at a time.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

# The first takes longest, and its programs are built before any machine runs.
kernels=(6.1-arm64 5.10 6.1 6.12 newest 6.12-lockdown)
# The modules of these kernels that the checks need.
modules=(veth tcp_diag)
programs=(kubelb-load kubelbctl test/guest test/test_relay)
vm=$PWD/build/vm
# shellcheck source=scripts/apt.sh
. scripts/apt.sh
# shellcheck source=scripts/elf.sh
. scripts/elf.sh

die() {
	echo "vmtest.sh: $1" >&2
	exit "${2:-1}"
}

usage() {
	sed -n '3,19s/^# \{0,1\}//p' "$0"
}

# --- which kernel -------------------------------------------------------------------

# Split a KERNEL into its series, its architecture, its folder below build/vm, and what is added to the
# kernel's command line.
series_of() {
	echo "${1%%-*}"
}

arch_of() {
	case $1 in
	*-arm64*) echo arm64 ;;
	*) echo amd64 ;;
	esac
}

folder_of() {
	echo "${1%-lockdown}"
}

options_of() {
	case $1 in
	*-lockdown) echo "lockdown=confidentiality" ;;
	esac
}

# suites_of SERIES CODENAME: the suites of Debian that contain it. CODENAME is the host's.
suites_of() {
	case $1 in
	5.10) echo "bullseye bullseye-security" ;;
	newest) echo "sid" ;;
	*) echo "$2 $2-updates $2-backports $2-security" ;;
	esac
}

# apt_prepare KERNEL: downloads package lists. One set for each group of suites, so that only what is
# needed is downloaded and each series comes from its own suites.
apt_prepare() {
	local suites
	suites=$(suites_of "$(series_of "$1")" "$(apt_codename)")
	apt=$vm/apt/${suites%% *}
	[ "$(arch_of "$1")" = amd64 ] || apt+=-$(arch_of "$1")
	[ ! -e "$run/${apt##*/}.updated" ] || return 0
	# shellcheck disable=SC2086
	apt_configure "$apt" "$(arch_of "$1")" $suites || return
	# Its status is ignored: a suite may be missing on the mirror.
	timeout 300 apt-get -c "$apt/apt.conf" -q update >"$apt/log" 2>&1
	touch "$run/${apt##*/}.updated"
}

# depends_on PACKAGE...: their dependencies, one on each line, without versions.
depends_on() {
	apt-cache -c "$apt/apt.conf" show "$@" 2>/dev/null | sed -n 's/^Depends: //p' |
		tr ',' '\n' | sed 's/^ *//; s/ .*//'
}

# kernel_image SERIES ARCHITECTURE: the package that the meta-packages depend on. Its name changes with
# the kernel's ABI.
kernel_image() {
	local names="linux-image-$1."
	[ "$1" = newest ] && names=linux-image-
	depends_on "linux-image-cloud-$2" "linux-image-$1-cloud-$2" |
		grep '^linux-image-[0-9]' | grep -F "$names" | sort -V | tail -n 1
}

# kernel_packages IMAGE: the packages with its files. In newer releases IMAGE is empty and the
# files are in three packages.
kernel_packages() {
	local release=${1#linux-image-}
	depends_on "$1" | sort -u |
		grep -xF -e "linux-base-$release" -e "linux-binary-$release" -e "linux-modules-$release" ||
		echo "$1"
}

# kernel_unpack DIRECTORY DEB...: the directory appears when it is complete.
kernel_unpack() {
	local part=$1.part to=$1 deb image release
	shift
	rm -rf "$part" "$to"
	mkdir -p "$part" || return
	for deb in "$@"; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$part" --exclude=./usr/share || return
	done
	# Some packages have them in /usr/lib; modprobe looks in /lib.
	[ -e "$part/lib" ] || ln -s usr/lib "$part/lib" || return
	release=$(basename "$part"/lib/modules/*)
	depmod -b "$part" "$release" || return
	for image in "$part/boot/vmlinuz-$release" "$part/lib/modules/$release/vmlinuz"; do
		[ ! -e "$image" ] || mv "$image" "$part/vmlinuz" || return
	done
	if [ ! -e "$part/vmlinuz" ]; then
		echo "no kernel in it"
		return 1
	fi
	echo "$release" >"$part/release"
	mv "$part" "$to"
}

# kernel_fetch KERNEL: makes its folder, or prints why it cannot.
kernel_fetch() {
	local image series dir=$vm/download
	local -a packages
	[ ! -e "$vm/$1/vmlinuz" ] || return 0
	series=$(series_of "$1")
	apt_prepare "$1" || { echo "apt has no Debian mirror among its sources"; return 1; }
	image=$(kernel_image "$series" "$(arch_of "$1")")
	if [ -z "$image" ]; then
		echo "no linux-image of $series at $(awk '{ print $(NF - 1) }' "$apt/sources.list" | xargs):" \
			"$(apt_complaint "$apt/log" | grep . || echo "not in the lists")"
		return 1
	fi
	mapfile -t packages < <(kernel_packages "$image")
	rm -rf "$dir"
	mkdir -p "$dir"
	if ! (cd "$dir" && timeout 600 apt-get -c "$apt/apt.conf" -q download "${packages[@]}") >"$apt/log" 2>&1; then
		echo "cannot download ${packages[*]}: $(apt_complaint "$apt/log")"
		return 1
	fi
	if ! kernel_unpack "$vm/$1" "$dir"/*.deb >"$apt/log" 2>&1; then
		echo "cannot unpack ${packages[*]}: $(tail -n 1 "$apt/log")"
		return 1
	fi
	rm -rf "$dir"
}

# --- what it boots ------------------------------------------------------------------

# uname_of ARCHITECTURE: what the kernel and the Makefile call it.
uname_of() {
	case $1 in
	arm64) echo aarch64 ;;
	*) echo x86_64 ;;
	esac
}

# build_of ARCHITECTURE: where its programs are built.
build_of() {
	[ "$1" = amd64 ] && echo build || echo "build/$(uname_of "$1")"
}

# sysroot_of ARCHITECTURE: where its libraries and commands are; nothing if they are the host's.
sysroot_of() {
	[ "$1" = amd64 ] || echo "$PWD/build/sysroot/$1"
}

# initramfs_add ROOT SYSROOT PROGRAM PATH: adds a program and its libraries.
initramfs_add() {
	local root=$1 from=$2 libraries library
	install -D "$3" "$root$4" || return
	# A static program has none.
	libraries=$(elf_libraries "$from" "$3") || return
	for library in $(elf_loader "$3") $libraries; do
		[ -e "$root$library" ] || install -D "$from$library" "$root$library" || return
	done
}

# command_of SYSROOT NAME: its file.
command_of() {
	PATH=$1/usr/sbin:$1/usr/bin:$1/sbin:$1/bin command -v "$2"
}

# The modules, in the order in which they must be loaded.
initramfs_add_modules() {
	local root=$1 kernel=$2 release=$3 module path name
	mkdir -p "$root/modules"
	for module in "${modules[@]}"; do
		modprobe -d "$kernel" -S "$release" --show-depends "$module" || return
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$root/modules/paths" || return
	while read -r path; do
		name=$(basename "${path%.ko*}.ko")
		case $path in
		*.xz) xz -dc "$path" >"$root/modules/$name" ;;
		*.zst) zstd -qdc "$path" >"$root/modules/$name" ;;
		*) cp "$path" "$root/modules/$name" ;;
		esac || return
		echo "$name" >>"$root/modules/order"
	done <"$root/modules/paths"
	[ -s "$root/modules/order" ]
}

# initramfs_make ARCHITECTURE KERNEL RELEASE FILE
initramfs_make() {
	local root program from build
	root=$work/root from=$(sysroot_of "$1") build=$(build_of "$1")
	rm -rf "$root"
	mkdir -p "$root"/{dev,proc,sys,tmp,run,etc} || return
	install -D tests/vm/init "$root/init" || return
	install -D -m 644 tests/verifier.budget "$root/verifier.budget" || return
	initramfs_add "$root" "$from" "$(command_of "$from" busybox)" /bin/busybox || return
	initramfs_add "$root" "$from" "$(command_of "$from" bpftool)" /usr/sbin/bpftool || return
	initramfs_add "$root" "$from" "$(command_of "$from" ip)" /usr/sbin/ip || return
	for program in "${programs[@]}"; do
		initramfs_add "$root" "$from" "$build/$program" "/kubelb/${program##*/}" || return
	done
	initramfs_add_modules "$root" "$2" "$3" || return
	(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$4"
}

# --- the machine --------------------------------------------------------------------

# accelerator RELEASE: how to run the machine. The emulated processor has no cmpxchg16b: with it, an
# interrupt right after that instruction finds wrong flags (QEMU 7.2), and Linux 6.12 crashes on a
# busy host. Newer kernels seldom use the instruction, but without it they cannot allocate memory
# for what BPF programs store with a socket (kmalloc_nolock).
accelerator() {
	if grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo && [ -w /dev/kvm ]; then
		echo "-accel kvm -cpu host"
	elif printf '%s\n' 6.18 "$1" | sort -V -C; then
		echo "-accel tcg -cpu max"
	else
		echo "-accel tcg -cpu max,cx16=off"
	fi
}

# machine_of ARCHITECTURE RELEASE: QEMU's program, the machine, and the kernel's console. The second
# serial port, where the verdicts go, is ttyS1 of a PC, and ttyS0 on arm64's bus.
machine_of() {
	case $1 in
	amd64) echo "qemu-system-x86_64 $(accelerator "$2")" \
		"-serial file:$work/console -serial file:$work/verdicts -append console=ttyS0" ;;
	arm64) echo "qemu-system-aarch64 -M virt -accel tcg -cpu neoverse-n1" \
		"-chardev file,id=verdicts,path=$work/verdicts -device pci-serial,chardev=verdicts" \
		"-serial file:$work/console -append console=ttyAMA0" ;;
	esac
}

# vm_boot KERNEL INITRAMFS: writes the serial ports to $work/console and $work/verdicts. Returns 124
# when the machine had to be stopped.
vm_boot() {
	local status folder machine
	folder=$vm/$(folder_of "$1")
	read -ra machine <<<"$(machine_of "$(arch_of "$1")" "$(cat "$folder/release")")"
	# The last word is the beginning of what the kernel is told.
	machine[-1]+=" rdinit=/init panic=-1 oops=panic $(options_of "$1")"
	timeout -k 5 "${VM_SECONDS:-400}" "${machine[@]}" -smp 2 -m 512 \
		-nodefaults -no-user-config -display none -no-reboot \
		-kernel "$folder/vmlinuz" -initrd "$2" </dev/null >"$work/qemu" 2>&1 &
	qemu=$!
	wait "$qemu"
	status=$?
	qemu=
	return $status
}

# vm_judge STATUS: prints why the machine has failed, if it has.
vm_judge() {
	local bad good end
	bad=$(grep -c '^FAIL ' "$work/verdicts")
	good=$(grep -c '^ok ' "$work/verdicts")
	end=$(sed -n 's/^end //p' "$work/verdicts")
	if [ "$1" -eq 124 ]; then
		echo "hung, ended after ${VM_SECONDS:-400} s and $((good + bad)) checks"
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

# vm_run KERNEL: runs an unpacked kernel in a process of its own. Returns 0 if it has passed, 1 if not.
vm_run() {
	local folder options release what why status console=$vm/$1.console.log started=$SECONDS
	folder=$vm/$(folder_of "$1")
	options=$(options_of "$1")
	release=$(cat "$folder/release")
	what="$release${options:+ $options}"
	if ! initramfs_make "$(arch_of "$1")" "$folder" "$release" "$work/initramfs" 2>"$work/log"; then
		echo "FAIL vm $what: no initramfs: $(tail -n 1 "$work/log")"
		return 1
	fi
	: >"$work/console"
	: >"$work/verdicts"
	vm_boot "$1" "$work/initramfs"
	status=$?
	# The first line comes from init. Without it init has not run, which happens now and then with
	# an emulator on a busy host.
	if [ ! -s "$work/verdicts" ]; then
		echo "   note $what did not reach its init (exit $status): booted once more"
		vm_boot "$1" "$work/initramfs"
		status=$?
	fi
	# Removes the carriage returns of a terminal.
	sed -i 's/\r$//' "$work/console" "$work/verdicts"
	cp "$work/console" "$console"
	why=$(vm_judge $status)
	grep -vE '^(end|kernel) ' "$work/verdicts" | sed 's/^/   /'
	if [ -n "$why" ]; then
		echo "FAIL vm $what: $why; its console, whole in ${console#"$PWD/"}, ends:"
		tail -n 40 "$console" | sed 's/^/   | /'
		return 1
	fi
	echo "ok vm $what ($(grep -c '^ok ' "$work/verdicts") checks, $((SECONDS - started)) s)"
}

# --- all of them --------------------------------------------------------------------

# vm_start KERNEL: keeps the output until the machine has ended, so that the lines of a kernel stay
# together.
vm_start() {
	work=$run/$1
	mkdir "$work" || die "cannot write to $run"
	(
		qemu=
		trap '[ -z "$qemu" ] || { kill "$qemu"; wait "$qemu"; }; exit 143' TERM
		vm_run "$1"
	) >"$work/said" 2>&1 &
	running[$!]=$1
}

# Waits for a machine.
vm_finish() {
	local pid status
	wait -n -p pid "${!running[@]}"
	status=$?
	cat "$run/${running[$pid]}/said"
	rm -rf "${run:?}/${running[$pid]}"
	unset "running[$pid]"
	[ $status -eq 0 ] || failed=$((failed + 1))
}

end() {
	[ ${#running[@]} -eq 0 ] || kill "${!running[@]}" 2>/dev/null
	wait
	rm -rf "$run"
}

# obstacle_to ARCHITECTURE: why its kernels cannot be booted here, if so.
obstacle_to() {
	local tool missing=()
	local -a tools=(busybox cpio modprobe depmod bpftool ip xz zstd dpkg-deb apt-get)
	if [ "$(uname -m)" != x86_64 ]; then
		echo "written for x86_64, this is $(uname -m)"
		return
	fi
	case $1 in
	arm64) tools+=(qemu-system-aarch64 aarch64-linux-gnu-gcc) ;;
	*) tools+=(qemu-system-x86_64) ;;
	esac
	for tool in "${tools[@]}"; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	[ ${#missing[@]} -eq 0 ] || echo "not installed: ${missing[*]} (scripts/deps.sh installs them)"
}

# build_for ARCHITECTURE: what goes into its machines, once.
build_for() {
	local build
	build=$(build_of "$1")
	[ ! -e "$run/$1.built" ] || return 0
	[ "$1" = amd64 ] || scripts/sysroot.sh "$1" >&2 || die "no libraries of $1"
	make -s -j"$(nproc)" ARCH="$(uname_of "$1")" all "${programs[@]/#/$build/}" ||
		die "cannot build what goes into the machine"
	touch "$run/$1.built"
}

# check_arguments KERNEL...: each may be named once, because each has its own files.
check_arguments() {
	local kernel
	for kernel in "$@"; do
		[[ $kernel =~ ^([0-9]+\.[0-9]+|newest)(-arm64)?(-lockdown)?$ ]] ||
			die "'$kernel': want a kernel series such as 6.1, or newest, or either with -arm64 or -lockdown; see --help" 2
	done
	kernel=$(printf '%s\n' "$@" | sort | uniq -d | head -n 1)
	[ -z "$kernel" ] || die "'$kernel' twice" 2
	[[ ${VM_SECONDS:-400} =~ ^[1-9][0-9]*$ ]] || die "VM_SECONDS=$VM_SECONDS: want a number of seconds" 2
	[[ ${VM_JOBS:-2} =~ ^[1-9][0-9]*$ ]] || die "VM_JOBS=$VM_JOBS: want a number of machines" 2
}

main() {
	local kernel why ran=0
	case ${1:-} in
	-h | --help) usage; exit 0 ;;
	esac
	check_arguments "$@"
	[ $# -gt 0 ] || set -- "${kernels[@]}"
	mkdir -p "$vm" || die "cannot make $vm"
	run=$(mktemp -d "$vm/run.XXXXXX") || die "cannot write to $vm"
	trap end EXIT
	trap 'exit 130' INT TERM
	for kernel in "$@"; do
		why=$(obstacle_to "$(arch_of "$kernel")")
		if [ -n "$why" ]; then
			echo "SKIPPED vm $kernel: $why"
			continue
		fi
		build_for "$(arch_of "$kernel")"
		# One after the other, while machines run: two KERNELs may need the same files.
		if ! why=$(kernel_fetch "$(folder_of "$kernel")"); then
			echo "SKIPPED vm $kernel: $why"
			continue
		fi
		[ ${#running[@]} -lt "${VM_JOBS:-2}" ] || vm_finish
		vm_start "$kernel"
		ran=$((ran + 1))
	done
	while [ ${#running[@]} -gt 0 ]; do
		vm_finish
	done
	[ $failed -eq 0 ] || exit 1
	[ $ran -gt 0 ] || exit 77
}

PATH=$PATH:/usr/sbin:/sbin
# The KERNEL of each process id.
declare -A running=()
failed=0
main "$@"
