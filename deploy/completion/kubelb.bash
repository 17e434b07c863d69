# SPDX-License-Identifier: BSD-2-Clause
# Bash completion for kubelb-load, kubelb-agent and kubelbctl. What there is to complete
# comes from the program's own --help, so this file has nothing that could go stale.

# The options of the --help on standard input, one a line.
_kubelb_options() {
	grep '^ *-' | grep -oE -- '(^|[ ,])--?[A-Za-z][a-z-]*' | tr -d ' ,' | sort -u
}

# What follows option $1 in the --help on standard input: FILE, DIR, FORMAT, ...
_kubelb_operand() {
	sed -nE "s/^(.*[ ,])?${1}(, --[a-z-]+)? ([A-Z]+).*/\\3/p" | head -n 1
}

# "COMMAND REST" of each command of the --help on standard input.
_kubelb_commands() {
	sed -nE '/^Commands:/,/^$/s/^  ([a-z]+) */\1 /p'
}

# The words to choose from behind option $1 in the --help on standard input: those with a | between.
_kubelb_choices() {
	grep -E -- "(^|[ ,])$1([ ,]|$)" | grep -oE '[a-z]+(\|[a-z]+)+' | tr '|' '\n'
}

_kubelb_backends() {
	"$1" status -o json 2>/dev/null | sed -nE '/^  "backends": /,/^  \]/s/.*"address": "([^"]*)".*/\1/p'
}

_kubelb() {
	local IFS=$' \t\n' program=$1 help line word list operand i
	local -a words operands=()

	# As it was typed: bash itself breaks words at each colon, and addresses have them.
	line=${COMP_LINE:0:COMP_POINT}
	word=${line##*[[:space:]]}
	read -ra words <<<"${line%"$word"}"
	help=$("$program" --help 2>/dev/null) || return
	operand=
	[[ ${words[-1]} != -* ]] || operand=$(_kubelb_operand "${words[-1]}" <<<"$help")
	for ((i = 1; i < ${#words[@]}; i++)); do
		if [[ -n $(_kubelb_operand "${words[i]}" <<<"$help") && ${words[i]} == -* ]]; then
			((i++))
		elif [[ ${words[i]} != -* ]]; then
			operands+=("${words[i]}")
		fi
	done

	list=
	case $operand in
	FILE) mapfile -t COMPREPLY < <(compgen -f -- "$2"); compopt -o filenames 2>/dev/null; return ;;
	DIR) mapfile -t COMPREPLY < <(compgen -d -- "$2"); compopt -o filenames 2>/dev/null; return ;;
	FORMAT | WHEN | KEY)
		list=$(_kubelb_choices "${words[-1]}" <<<"$help")
		[[ -n $list || $operand != FORMAT ]] || list=$'text\njson'
		;;
	ADDR | N | SECONDS) return ;;
	*)
		if [[ $word == -* ]]; then
			list=$(_kubelb_options <<<"$help")
		elif [[ ${#operands[@]} -eq 0 ]]; then
			list=$(_kubelb_commands <<<"$help" | cut -d' ' -f1)
		elif [[ ${#operands[@]} -eq 1 ]] &&
			_kubelb_commands <<<"$help" | grep -q "^${operands[0]} .*BACKEND"; then
			list=$(_kubelb_backends "$program")
		elif [[ ${operands[*]} == help ]]; then
			list=$(_kubelb_commands <<<"$help" | cut -d' ' -f1)
		elif [[ ${operands[*]} == ping ]]; then
			list=ready
		fi
		;;
	esac
	# Only what stands behind the last break is bash's to replace.
	mapfile -t COMPREPLY < <(while read -r i; do
		[[ -n $i && $i == "$word"* ]] && printf '%s\n' "${i#"${word%"$2"}"}"
	done <<<"$list")
}
complete -F _kubelb kubelb-load kubelb-agent kubelbctl
