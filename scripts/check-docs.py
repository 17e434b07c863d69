#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Do the pages say what the sources say? Part of `make lint`.

    scripts/check-docs.py [ROOT]     0: they do. 1: a line for each thing that they do not say
    scripts/check-docs.py --list     the messages that docs/operations.md has to explain

docs/operations.md
  Every state, reason, event, kind of failure, word of discovery and metric with its label
  values has a row, and every metric there exists. Every message of user/*/*.c is explained: a
  format's longest stretch of constant text before its first ';' stands in a code span.
  Formats without such a stretch ("%s: %s") only wrap another error and are left out.
  Every alert of deploy/prometheus has a section, and its `runbook_url` leads there.
docs/architecture.md
  Every file of bpf/, user/ and include/ is in the table of its folder, and every file there
  exists; every pin is in the table of the maps.
docs/man
  Options, commands, exit statuses, configuration keys with their ranges, pins, metrics with
  their label values, and the keys of the JSON output.
README.md
  In the table "Where to look" each function is in the file of its row, and each other piece of
  code is in the function before it. A … stands for anything.
README.md, CONTRIBUTING.md, docs/*.md
  No paragraph, list item or table cell has more than PARAGRAPH_MAX words. Blocks of code do
  not count. No two rows of a table begin with the same cell; pages of figures may have such rows.
"""

import fnmatch
import glob
import os
import re
import sys

# Who prints, and which of its arguments is the text; None: whichever is a literal.
PRINTERS = {"err_set": 2, "err_format": 1, "log_event": 1, "log_failure": 2, "log_line": 0, "cli_usage": 0,
            "config_fail": 2, "kubeconfig_fail": 2, "fail": None, "fail_step": 1, "tell_result": 2}
# Where details and notes are put together piece by piece, and in which functions.
DETAILS = {"agent/probe.c": ("snprintf",), "net/tls.c": ("snprintf",),
           "balance/backend_status.c": ("snprintf",), "ctl/brief.c": ("find",),
           "ctl/kill.c": ("printf",)}
# Functions whose every literal is for people.
SPOKEN = {"datapath/pin.c": ("bpf_errno_hint",), "agent/pages.c": ("agent_not_ready",),
          "base/file.c": ("fail_next",),
          "ctl/status.c": ("effect_text", "print_notes", "print_head"),
          "ctl/running.c": ("print_configuration",),
          "net/tls.c": ("describe_error",), "agent/backend.c": ("on_lost",),
          "agent/probe.c": ("on_timeout",), "discovery/kubeconfig.c": ("read_user",)}
MARK_LETTERS = 6
PARAGRAPH_MAX = 100


class Checker:
    """Collects what is missing, with where it is wanted."""

    def __init__(self, root):
        self.root = root
        self.faults = []

    def text(self, path):
        with open(os.path.join(self.root, path), encoding="utf-8") as f:
            return f.read()

    def page(self, path):
        """A Markdown page without its blocks of code."""
        return re.sub(r"^```.*?^```$", "", self.text(path), flags=re.M | re.S)

    def files(self, *directories):
        for directory in directories:
            for folder, _folders, names in sorted(os.walk(os.path.join(self.root, directory))):
                for name in sorted(names):
                    if name.endswith((".c", ".h")):
                        yield os.path.relpath(os.path.join(folder, name), self.root)

    def want(self, there, where, what):
        if not there:
            self.faults.append(f"{where}: {what}")

    def want_all(self, names, there, where, what):
        names = list(names)
        self.want(names, "scripts/check-docs.py", f"finds no {what} in the sources any more")
        for name in names:
            self.want(name in there, where, f"{what} '{name}' is missing")


# --- C ------------------------------------------------------------------------------------

STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
METRIC = re.compile(r'"((?:kubelb|process)_[a-z0-9_]+)"')


def without_comments(text):
    return re.sub(r'("(?:[^"\\]|\\.)*")|/\*.*?\*/', lambda m: m.group(1) or " ", text, flags=re.S)


def unescape(literal):
    return literal.replace('\\"', '"').replace("\\n", " ").replace("\\\\", "\\")


def arguments(text, start):
    """The arguments of the call whose '(' is before start, split at its commas."""
    depth, begin, i, found = 1, start, start, []
    while depth:
        string = STRING.match(text, i)
        if string:
            i = string.end()
            continue
        c = text[i]
        depth += (c in "([{") - (c in ")]}")
        if depth == 0 or (depth == 1 and c == ","):
            found.append(text[begin:i].strip())
            begin = i + 1
        i += 1
    return found


def literals(argument):
    """The texts that an argument may be; what stands between literals becomes a %s."""
    found = []
    for part in re.split(r'[?:](?=(?:[^"\\]|\\.|"(?:[^"\\]|\\.)*")*$)', argument):
        pieces = STRING.findall(part)
        if pieces:
            gaps = [re.sub(r"\s", "", g) for g in STRING.split(part)[::2]][1:-1] + [""]
            found.append("".join(unescape(p) + ("%s" if gap else "")
                                 for p, gap in zip(pieces, gaps)))
    return found


def calls(text, name):
    for match in re.finditer(rf"\b{name}\s*\(", text):
        yield arguments(text, match.end())


def body(text, function):
    """A function's definition, from its name to the '}' at the line's beginning."""
    match = re.search(rf"^[^\n;=]*\b{function}\([^;]*?\)\s*\n\{{.*?^\}}", text, re.S | re.M)
    return match.group(0) if match else ""


def table(text, name):
    """An array's initializer; without one, what is read from it would check nothing."""
    match = re.search(rf"\b{name}(?:\[\w*\])+ = \{{(.*?)^\}};|\b{name}(?:\[\w*\])+ = \{{(.*?)\}};",
                      text, re.S | re.M)
    if not match:
        sys.exit(f"check-docs.py: no table {name} where it is looked for; say where it is now")
    return match.group(1) or match.group(2)


# --- what the programs say ----------------------------------------------------------------


def mark(text):
    """What to find a message by: its longest stretch of constant text before the first ';'."""
    best = ""
    for piece in re.split(r"%(?!%)[-+ #0-9.*]*(?:hh|h|ll|l|z|j|t)?[a-zA-Z]", text):
        head, semicolon, _rest = piece.partition(";")
        head = " ".join(head.split()).strip(" :,.'\"()[]<>…/=")
        if len(head) > len(best):
            best = head
        if semicolon and best:
            break
    return best if sum(c.isalpha() for c in best) >= MARK_LETTERS else None


def spoken(path, text):
    """Every text that a file may print, and whether a single word is a message already."""
    name = os.path.relpath(path, "user")
    text = re.sub(r"^#define(?:[^\n]*\\\n)*[^\n]*\n", "\n", text, flags=re.M)
    printers = {**PRINTERS, **dict.fromkeys(DETAILS.get(name, ()), None)}
    for printer, index in printers.items():
        for args in calls(text, printer):
            wanted = args if index is None else args[index:index + 1]
            if printer == "log_event" and "DEBUG" in args[0]:
                continue
            for argument in wanted:
                yield from ((text, printer == "log_event") for text in literals(argument))
    for function in SPOKEN.get(name, ()):
        for piece in re.split(r"[;,{}]\s*\n|\bcase\b", body(text, function)):
            yield from ((text, False) for text in literals(piece))


def messages(check):
    """mark -> where it is said first."""
    found = {}
    for path in check.files("user"):
        if path.endswith(".c"):
            for text, alone in spoken(path, without_comments(check.text(path))):
                key = mark(text)
                if key and (alone or " " in key):
                    found.setdefault(key, path)
    return found


# --- Markdown -----------------------------------------------------------------------------


def spans(text):
    """The texts in backticks, on one line each."""
    found = re.findall(r"``(.+?)``|`([^`]+)`", text, re.S)
    return [" ".join((a or b).replace("\\|", "|").split()) for a, b in found]


def sections(page):
    """Heading -> what stands below it, up to the next heading of any level."""
    parts = re.split(r"^#+ (.+)$", page, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def rows(section):
    """The code spans of the first cells of a section's tables."""
    found = set()
    for line in section.splitlines():
        if line.startswith("|"):
            found.update(spans(re.split(r"(?<!\\)\|", line)[1]))
    return found


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# --- the sources' vocabulary --------------------------------------------------------------


def returned(check, path, function):
    return STRING.findall("".join(re.findall(r"return (\"[^\n]*);", body(check.text(path), function))))


def first_literals(initializer):
    """Of each row: { "key", "text" } or = "name"."""
    return re.findall(r'\] = \{? ?"([^"]+)"', initializer)


def vocabulary(check):
    """Heading of operations.md -> (what it is, the names that have a row there)."""
    names = check.text("user/balance/names.c")
    states = [s for s in returned(check, "user/balance/names.c", "names_state") if s != "invalid"]
    status = body(check.text("user/balance/backend_status.c"), "backend_status_name")
    kinds = [k for k in returned(check, "user/ctl/events.c", "events_kind_name") if k != "unknown"]
    discovery = check.text("user/discovery/watch.c")
    return {
        "States": ("state", sorted({*states, *STRING.findall(status)})),
        "Reasons": ("reason", STRING.findall(table(names, "reasons"))[1::2]),
        "Events": ("event", kinds),
        "How a connect fails": ("failure", first_literals(table(names, "failures"))),
        "Discovery's states": ("state of discovery", first_literals(table(names, "discoveries"))),
        "Discovery's results": ("result of discovery", first_literals(table(discovery, "names"))),
    }


def metrics(check):
    """name -> the names of its labels."""
    text = without_comments(check.text("user/agent/metrics.c")
                            + check.text("user/agent/metrics_relay.c"))
    found = {name: set() for name in METRIC.findall(text)}
    for function in re.findall(r"^\w[^\n;={]*?(\w+)\([^;{]*\)\n\{", text, re.M):
        definition = body(text, function)
        for name, labels in re.findall(r'"(%s|\w+?)(?:_bucket|_sum|_count)?\{([^}]*)\}', definition):
            # A name that the function has, or gets: "%s{backend=...}".
            names = [name] if name != "%s" else METRIC.findall(definition) or [
                n for args in calls(text, function) for n in METRIC.findall(" ".join(args))]
            for name in names:
                found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    for labels in found.values():
        labels.discard("le")
    return found


def check_labels(check, items, where):
    """items: what a page has of metrics, as name{label,label}."""
    for name, labels in metrics(check).items():
        match = re.search(rf"\b{name}\b(?:\{{([\w,]*)\}})?", items)
        check.want(match, where, f"metric '{name}' is missing")
        given = set(filter(None, (match.group(1) or "").split(","))) if match else labels
        check.want(labels == given, where, f"metric '{name}' has the labels {sorted(labels)}")


def label_values(check):
    text = check.text("user/agent/metrics.c")
    results = first_literals(table(check.text("user/balance/names.c"), "reasons"))
    ended = STRING.findall(body(text, "metrics_ended_name"))
    return [r for r in results if r != "none"], ended


# --- the pages ----------------------------------------------------------------------------


def check_operations(check):
    page, where = check.page("docs/operations.md"), "docs/operations.md"
    by_heading = sections(page)
    for heading, (what, names) in vocabulary(check).items():
        check.want(heading in by_heading, where, f"the section '{heading}' is missing")
        check.want_all(names, rows(by_heading.get(heading, "")), f"{where}, {heading}", what)
    check.want(len(metrics(check)) > 20, "scripts/check-docs.py", "finds no metrics any more")
    check_labels(check, " ".join(rows(by_heading.get("Metrics", ""))), f"{where}, Metrics")
    for name in sorted(set(re.findall(r"\b(?:kubelb|process)_[a-z0-9_]+", page))):
        known = any(re.fullmatch(rf"{m}(_bucket|_sum|_count)?", name) for m in metrics(check))
        check.want(known, where, f"there is no metric '{name}'")
    results, ended = label_values(check)
    check.want_all(results + ended, spans(by_heading.get("Metrics", "")), f"{where}, Metrics",
                   "label value")
    code = spans(page)
    for text, source in messages(check).items():
        check.want(any(text in s for s in code), where, f"the message of {source} '{text}' "
                   "is not explained")


def check_alerts(check):
    where = "deploy/prometheus/kubelb-alerts.yaml"
    rules, page = check.text(where), check.page("docs/operations.md")
    headings = {anchor(h) for h in sections(page)}
    names = re.findall(r"^ *- alert: (\w+)$", rules, re.M)
    check.want_all([n.lower() for n in names], headings, "docs/operations.md", "alert's section")
    for name, rule in zip(names, re.split(r"^ *- alert: ", rules, flags=re.M)[1:]):
        for need in ("severity", "summary", "description"):
            check.want(re.search(rf"^ +{need}: ", rule, re.M), where, f"{name} has no {need}")
        check.want(f"runbook_url: docs/operations.md#{name.lower()}" in rule, where,
                   f"{name} has no runbook, or it does not lead to its section")
    for heading in sections(page):
        if re.fullmatch(r"Kubelb\w+", heading):
            check.want(heading in names, "docs/operations.md", f"there is no alert {heading}")
    for target in re.findall(r"\]\(#([^)]+)\)", page):
        check.want(target in headings, "docs/operations.md", f"#{target} leads nowhere")


def stem(path):
    return re.sub(r"(\.bpf)?\.[ch]$", "", path)


def folder_patterns(page):
    """Below `## Folders` a heading names a folder, and the first cells of its table the files."""
    chapter = re.search(r"^## Folders$(.*?)(?=^## |\Z)", page, re.M | re.S)
    parts = re.split(r"^### `([^`]+)/`$", chapter.group(1) if chapter else "", flags=re.M)
    for folder, section in zip(parts[1::2], parts[2::2]):
        for name in sorted(rows(section)):
            yield os.path.join(folder, name)


def check_folders(check):
    where = "docs/architecture.md, Folders"
    patterns = list(folder_patterns(check.page("docs/architecture.md")))
    files = list(check.files("bpf", "user", "include/kubelb"))
    for path in files:
        there = any(fnmatch.fnmatchcase(stem(path), stem(p)) for p in patterns)
        check.want(there, where, f"{path} is in no table")
    for pattern in patterns:
        check.want(fnmatch.filter(files, pattern), where, f"there is no {pattern}")


def pins(check):
    others = re.findall(r'#define PIN_\w+ "(\w+)"', check.text("user/datapath/internal.h"))
    return STRING.findall(table(check.text("user/datapath/pin.c"), "map_pins")) + others + ["links/"]


def check_pins(check):
    there = rows(sections(check.page("docs/architecture.md")).get("The maps", ""))
    check.want_all(pins(check), there, "docs/architecture.md, The maps", "pin")
    check.want_all(pins(check), re.findall(r"^\.It Pa (\S+)$", check.text(man("kubelb-load.8")),
                                           re.M), man("kubelb-load.8"), "pin")


def man(name):
    return f"docs/man/{name}"


def options(text):
    """(long, short or "") of a program's table."""
    found = re.findall(r'\{ "([a-z-]+)", \w+, NULL, (\'(\w)\'|\w+) \}', text)
    accepted = "".join(re.findall(r'getopt_long\(argc, argv, "([^"]*)"', text))
    return [(name, short if short in accepted and short else "") for name, _v, short in found]


MAINS = {"kubelb-load": "user/load/main.c", "kubelb-agent": "user/agent/main.c",
         "kubelbctl": "user/ctl/main.c"}


def check_options(check):
    for program, path in MAINS.items():
        source = check.text(path)
        where = man(f"{program}.8")
        items = re.findall(r"^\.It (Fl .*)$", check.text(where), re.M)
        found = options(source)
        check.want(found, where, f"no options found in {path}")
        for name, short in found:
            head = f"Fl {short} , -{name}" if short else f"Fl -{name}"
            check.want(any(i == head or i.startswith(head + " ") for i in items), where,
                       f"option --{name} is missing ('.It {head}')")
        for status in re.findall(r"CLI_\w+ = (\d)", check.text("user/base/cli.h")):
            section = re.search(r"^\.Sh EXIT STATUS$(.*?)^\.Sh", check.text(where), re.M | re.S)
            check.want(section and re.search(rf"^\.It {status}$", section.group(1), re.M), where,
                       f"exit status {status} is missing")
    commands = re.findall(r'\{ "(\w+)", "', table(check.text("user/ctl/main.c"), "commands"))
    there = re.findall(r"^\.It Cm (\w+)", check.text(man("kubelbctl.8")), re.M)
    check.want_all(commands, there, man("kubelbctl.8"), "command")


# What read_* makes of a key that is a mapping or a list of mappings, and its table.
MAPPINGS = {"probe": "probe", "discovery": "discovery", "frontends": "frontends[]",
            "backends": "backends[]", "relay": "relay"}


def duration(ms):
    for unit, size in (("h", 3600000), ("m", 60000), ("s", 1000)):
        if ms and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def milliseconds(text):
    units = {"SECOND_MS": 1000, "MINUTE_MS": 60000, "HOUR_MS": 3600000, "KLB_WEIGHT_MAX": 1000,
             "CONFIG_RELAY_CONNECTIONS_MAX": 500000}
    product = 1
    for factor in re.split(r"\s*\*\s*", text.strip()):
        product *= units[factor] if factor in units else int(factor)
    return product


def configuration_keys(check):
    """dotted key -> its range as the page writes it, or "" """
    text, found = check.text("user/config/schema.c"), {}
    tables = {"root_keys": "", "probe_keys": "probe.", "discovery_keys": "discovery.",
              "relay_keys": "relay.", "frontend_keys": "frontends[].", "backend_keys": "backends[]."}
    for name, prefix in tables.items():
        for args in calls(table(text, name), "KEY"):
            limits = dict(re.findall(r"\.(min|max) = (.+)", "\n".join(args[4:])))
            key = prefix + STRING.match(args[0]).group(1)
            found[key] = ""
            if limits:
                low, high = milliseconds(limits["min"]), milliseconds(limits["max"])
                is_duration = args[1] == "config_read_duration"
                found[key] = (f"{duration(low)} to {duration(high)}" if is_duration
                              else f"{low} to {high}")
    return found


def check_keys(check):
    where = man("kubelb.yaml.5")
    page = check.text(where)
    items = dict(re.findall(r"^\.It Ic (\S+)$(.*?)(?=^\.It Ic |^\.Ss |^\.Sh )", page,
                            re.M | re.S))
    for key, limits in configuration_keys(check).items():
        if key in MAPPINGS and key not in items:
            check.want(re.search(rf"^\.Ic {key}$", page, re.M), where, f"key {key} is missing")
            continue
        check.want(key in items, where, f"key {key} is missing")
        text = " ".join(items.get(key, "").split())
        check.want(limits in text, where, f"key {key}: its range is '{limits}'")
    for key in items:
        check.want(key in configuration_keys(check), where, f"there is no key {key}")


def plain(page):
    """The words of a man page."""
    return set(re.findall(r"[\w-]+", re.sub(r"^\.\w+ ?", "", page, flags=re.M)))


def json_keys(text):
    """The keys of every json_pack: a name follows each s: of the format."""
    for args in calls(text, "json_pack"):
        for argument in args[1:]:
            if re.fullmatch(r'"[a-zA-Z]+"', argument):
                yield argument.strip('"')


def check_words(check):
    """Metrics in kubelb-agent.8, and what kubelbctl prints in its page."""
    where = man("kubelb-agent.8")
    page = check.text(where)
    check_labels(check, " ".join(re.findall(r"^\.It Li (.*)$", page, re.M)), where)
    for name in re.findall(r"\bkubelb_[a-z0-9_]+", page):
        check.want(name in metrics(check), where, f"there is no metric '{name}'")
    results, ended = label_values(check)
    words = vocabulary(check)
    check.want_all(results + ended + words["How a connect fails"][1] +
                   words["Discovery's results"][1], plain(page), where, "label value")
    where = man("kubelbctl.8")
    keys = [k for f in ("status", "relay_status", "running", "connections", "events")
            for k in json_keys(check.text(f"user/ctl/{f}.c"))]
    check.want_all(keys, plain(check.text(where)), where, "JSON key")
    check.want_all(words["Events"][1] + words["Discovery's states"][1],
                   plain(check.text(where)), where, "word")


def holds(text, piece):
    """Is the piece of code in the text, however both are broken into lines?"""
    parts = [r"\s*".join(map(re.escape, part.split())) for part in piece.split("…")]
    return re.search(".*?".join(parts), text, re.S)


def check_where_to_look(check):
    where = "README.md, Where to look"
    found = [re.split(r"(?<!\\)\|", line)[2:4] for line in
             sections(check.page("README.md")).get("Where to look", "").splitlines()
             if re.match(r"\|.*`", line)]
    check.want(found, "scripts/check-docs.py", "finds no table 'Where to look' in README.md any more")
    for path, places in found:
        path, function = spans(path)[0], ""
        there = os.path.exists(os.path.join(check.root, path))
        check.want(there, where, f"there is no {path}")
        source = without_comments(check.text(path)) if there else ""
        for piece in spans(places):
            if re.fullmatch(r"\w+", piece):
                function = piece
                check.want(body(source, function), where, f"{path} has no function {function}")
            else:
                check.want(holds(body(source, function), piece), where,
                           f"{function} in {path} does not have '{piece}'")


CELL_END = re.compile(r"(?<!\\)\|")
# What was measured, for one case after the other.
PAGES_OF_FIGURES = {"docs/bench.md", "docs/scale.md"}
LIST_ITEM = re.compile(r" *(?:[-*+]|\d+[.)]) +")


def paragraphs(text):
    """(line number, text) of each paragraph, list item, heading and table cell."""
    begin, lines, fence = 0, [], None
    for number, line in enumerate([*text.splitlines(), ""], 1):
        mark_of_code = re.match(r"\s*(```+|~~~+)", line)
        row, item = line.lstrip().startswith("|"), LIST_ITEM.match(line)
        is_code = bool(fence or mark_of_code)
        alone = is_code or row or line.startswith("#")
        if lines and (alone or item or not line.strip()):
            yield begin, " ".join(lines)
            lines = []
        if is_code:
            if not fence:
                fence = mark_of_code.group(1)
            elif line.strip() == fence:
                fence = None
        elif row:
            yield from ((number, cell) for cell in CELL_END.split(line))
        elif line.startswith("#"):
            yield number, line
        elif line.strip():
            begin = begin if lines else number
            lines.append(line[item.end():] if item else line)


def check_paragraphs(check):
    pages = glob.glob("docs/*.md", root_dir=check.root)
    for path in sorted({"README.md", "CONTRIBUTING.md", *pages}):
        if not os.path.exists(os.path.join(check.root, path)):
            continue
        for line, text in paragraphs(check.text(path)):
            words = len(text.split())
            check.want(words <= PARAGRAPH_MAX, f"{path}:{line}",
                       f"a paragraph of {words} words; at most {PARAGRAPH_MAX}")


def check_rows(check):
    """Two rows for one thing: mostly what two changes of the same row leave behind."""
    pages = set(glob.glob("docs/*.md", root_dir=check.root)) - PAGES_OF_FIGURES
    for path in sorted({"README.md", "CONTRIBUTING.md", "tests/README.md", *pages}):
        if not os.path.exists(os.path.join(check.root, path)):
            continue
        seen = {}
        for number, line in enumerate(check.text(path).splitlines(), 1):
            if not line.startswith("|"):
                seen = {}
                continue
            first = CELL_END.split(line)[1].strip()
            check.want(not first or first not in seen, f"{path}:{number}",
                       f"the table has a row for {first} already, on line {seen.get(first)}")
            seen[first] = number


def main(argv):
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    if argv[1:] == ["--list"]:
        for text, source in messages(Checker(root)).items():
            print(f"{source}: {text}")
        return 0
    check = Checker(argv[1] if len(argv) > 1 else root)
    for part in (check_operations, check_alerts, check_folders, check_pins, check_options,
                 check_keys, check_words, check_where_to_look, check_paragraphs, check_rows):
        part(check)
    for fault in check.faults:
        print(f"check-docs: {fault}", file=sys.stderr)
    return 1 if check.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
