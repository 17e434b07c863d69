# SPDX-License-Identifier: BSD-2-Clause
# Fish completion for kubelb-load, kubelb-agent and kubelbctl. What there is to complete
# comes from the program's own --help, so this file has nothing that could go stale.

# Runs the program of the command line with these arguments.
function __kubelb_run
    set -l words (commandline -opc)
    $words[1] $argv 2>/dev/null
end

# The long options, each with the text behind it.
function __kubelb_options
    __kubelb_run --help | grep '^ *-' | string match -rag -- '(--[a-z][a-z-]*)' | sort -u
end

# What follows option $argv[1]: FILE, DIR, FORMAT, ...
function __kubelb_operand
    string match -q -- '-*' $argv[1]; or return
    __kubelb_run --help | string match -rg -- "(?:^|[ ,])$argv[1](?:, --[a-z-]+)? ([A-Z]+)" | head -n 1
end

# The words to choose from behind option $argv[1]: those with a | between.
function __kubelb_choices
    __kubelb_run --help | grep -E -- "(^|[ ,])$argv[1]([ ,]|\$)" | string match -rag -- '([a-z]+(?:\|[a-z]+)+)' | string split '|'
end

# The words that are neither options nor an option's operand: the command, and what it is for.
function __kubelb_operands
    set -l words (commandline -opc)
    set -l skip 0
    for word in $words[2..]
        if test $skip -eq 1
            set skip 0
        else if test -n "$(__kubelb_operand $word)"
            set skip 1
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end

# Each command, a tab, and what it does.
function __kubelb_commands
    __kubelb_run --help | sed -nE '/^Commands:/,/^$/s/^  ([a-z]+) .*  ([^ ].*)$/\1\t\2/p'
end

function __kubelb_backends
    __kubelb_run status -o json | sed -nE '/^  "backends": /,/^  \]/s/.*"address": "([^"]*)".*/\1/p'
end

# Whatever can stand at the cursor.
function __kubelb_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    switch (__kubelb_operand $words[-1])
        case FILE
            __fish_complete_path $word
            return
        case DIR
            __fish_complete_directories $word
            return
        case FORMAT WHEN KEY
            set -l choices (__kubelb_choices $words[-1])
            test -n "$choices"; or set choices text json
            printf '%s\n' $choices
            return
        case ADDR N SECONDS
            return
    end
    set -l operands (__kubelb_operands)
    if string match -q -- '-*' $word
        __kubelb_options
    else if test (count $operands) -eq 0; or test "$operands" = help
        __kubelb_commands
    else if test "$operands" = ping
        echo ready
    else if test (count $operands) -eq 1; and __kubelb_run --help | grep -q "^  $operands .*BACKEND"
        __kubelb_backends
    end
end

for program in kubelb-load kubelb-agent kubelbctl
    complete -c $program -f -a '(__kubelb_complete)'
end
