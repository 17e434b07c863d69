#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Makes one page of page.html, page.css and page.js, for a C program to include:
#
#   scripts/embed-page.sh FOLDER >HEADER
#
# The header has the page's bytes, PAGE_BYTES, and the hashes of style and script as a
# Content-Security-Policy names them, PAGE_STYLE and PAGE_SCRIPT. It takes no more than coreutils.
set -eu

cd "$1"

hash_of() {
	sha256sum <"$1" | cut -c 1-64 | tr a-f A-F | basenc --base16 -d | base64
}

# The two lines that name the other files become what is in these.
page() {
	while IFS= read -r line; do
		case $line in
		'<link rel="stylesheet" href="page.css">') printf '<style>' && cat page.css && echo '</style>' ;;
		'<script src="page.js"></script>') printf '<script>' && cat page.js && echo '</script>' ;;
		*) printf '%s\n' "$line" ;;
		esac
	done <page.html
}

if grep -l -i -e '</style' -e '</script' -e '<!--' page.css page.js >&2; then
	echo "embed-page.sh: these have what ends or changes the element that they are put into" >&2
	exit 1
fi
for tag in style script; do
	[ "$(page | grep -c "^<$tag>")" = 1 ] || {
		echo "embed-page.sh: page.html: the line for <$tag> is not there once" >&2
		exit 1
	}
done
printf '#define PAGE_STYLE "sha256-%s"\n#define PAGE_SCRIPT "sha256-%s"\n#define PAGE_BYTES \\\n' \
	"$(hash_of page.css)" "$(hash_of page.js)"
page | od -An -v -tx1 | sed 's/ \(..\)/0x\1,/g; s/^/\t/; s/$/ \\/'
echo
