# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Packages of other suites or of another architecture, downloaded and never installed. To be sourced.
# The host's own lists may be old or empty, and are not changed.

apt_codename() {
	sed -n 's/^VERSION_CODENAME=//p' /etc/os-release
}

# apt_mirrors SUITE...: the lines of a sources.list, with the host's mirrors: one address for
# security, one for all other suites.
apt_mirrors() {
	local keys=/usr/share/keyrings/debian-archive-keyring.gpg options=
	[ -e $keys ] && options="signed-by=$keys"
	# The lists of an old release stay expired.
	[ "$1" = bullseye ] && options+=" check-valid-until=no"
	# apt replaces the names in it.
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v codename="$(apt_codename)" -v suites="$*" -v options="$options" '
			codename == "" || $3 != "main" { next }
			$2 == codename { others = $1 }
			$2 == codename "-security" { security = $1 }
			END {
				n = split(suites, suite, " ")
				for (i = 1; i <= n; i++) {
					at = suite[i] ~ /-security$/ ? security : others
					if (at != "")
						print "deb", options == "" ? "" : "[" options "]", at, suite[i], "main"
				}
			}'
}

# apt_configure DIR ARCHITECTURE SUITE...: makes DIR/apt.conf, for apt-get -c and apt-cache -c, with
# lists in DIR and nothing installed. Fails if the host has no Debian mirror.
apt_configure() {
	local dir=$1 arch=$2
	shift 2
	mkdir -p "$dir"/{lists,cache/archives}/partial
	: >"$dir/status"
	apt_mirrors "$@" >"$dir/sources.list"
	cat >"$dir/apt.conf" <<-CONF
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
		#clear DPkg::Post-Invoke;
		#clear APT::Architectures;
		APT::Architecture "$arch";
		APT::Architectures "$arch";
		APT::Sandbox::User "root";
		Acquire::Retries "2";
		Acquire::http::Timeout "30";
		Acquire::Languages "none";
		Dir::Cache "$dir/cache";
		Dir::State::Lists "$dir/lists";
		Dir::State::status "$dir/status";
		Dir::Etc::SourceList "$dir/sources.list";
		Dir::Etc::SourceParts "/dev/null";
	CONF
	[ -s "$dir/sources.list" ]
}

# apt_complaint LOG: the last error of apt. (Its summary has no details.)
apt_complaint() {
	grep '^[EW]:' "$1" | grep -v 'Some index files' | tail -n 1
}
