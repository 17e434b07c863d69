/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shows status.json, and history.json as graphs, and asks again and again. What comes from the agent
 * gets into the page as text nodes alone, whatever is in it.
 */
"use strict";

const REFRESH_MS = 2000;
const HISTORY_MS = 5000;
const TIMEOUT_MS = 5000;
const WINDOW_S = 600;
const CERTIFICATE_WARN_DAYS = 14;
const LOCK_PATIENCE_S = 3;

/* --- elements --------------------------------------------------------------------------- */

/* An element with a class; what is no node becomes text. */
function el(name, kind, ...children) {
	const e = document.createElement(name);
	if (kind) e.className = kind;
	e.append(...children.filter((c) => c !== null && c !== undefined));
	return e;
}

function svg(name, attributes, ...children) {
	const e = document.createElementNS("http://www.w3.org/2000/svg", name);
	for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
	e.append(...children);
	return e;
}

/* Changes old into now where they differ, so that a selection or a scroll position stays. */
function patch(old, now) {
	if (old.isEqualNode(now)) return;
	if (old.nodeName !== now.nodeName || old.nodeType !== Node.ELEMENT_NODE) {
		old.replaceWith(now);
		return;
	}
	for (const name of old.getAttributeNames()) if (!now.hasAttribute(name)) old.removeAttribute(name);
	for (const name of now.getAttributeNames()) old.setAttribute(name, now.getAttribute(name));
	const children = [...now.childNodes];
	while (old.childNodes.length > children.length) old.lastChild.remove();
	children.forEach((child, i) => {
		if (i < old.childNodes.length) patch(old.childNodes[i], child);
		else old.append(child);
	});
}

function fill(id, ...children) {
	const old = document.getElementById(id);
	const now = old.cloneNode(false);
	now.append(...children);
	patch(old, now);
}

/* --- words ------------------------------------------------------------------------------ */

function count(n, one, many) {
	return `${number(n)} ${n === 1 ? one : many || one + "s"}`;
}

function number(n) {
	return n === null || n === undefined ? "–" : n.toLocaleString("en", { maximumFractionDigits: n < 10 ? 1 : 0 });
}

function duration(s) {
	if (s === null || s === undefined) return "–";
	if (s < 1) return s < 0.01 ? `${(s * 1000).toFixed(2)} ms` : `${Math.round(s * 1000)} ms`;
	for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]])
		if (s >= 2 * size) return `${Math.floor(s / size)} ${unit}`;
	return s < 10 ? `${s.toFixed(1)} s` : `${Math.floor(s)} s`;
}

const ago = (s) => (s === null || s === undefined ? "never" : `${duration(Math.max(0, s))} ago`);
const days = (s) => Math.floor(s / 86400);
const words = (key) => String(key).replaceAll("_", " ");
const clock = (when) => when.toLocaleTimeString("en-GB");

/* --- graphs ----------------------------------------------------------------------------- */

/* Sums lists of one length; null where none has a value. */
function total(lists) {
	return (lists[0] || []).map((_, i) => {
		const known = lists.map((l) => l[i]).filter((v) => v !== null);
		return known.length ? known.reduce((a, b) => a + b, 0) : null;
	});
}

/* The same in each second. */
function rates(history, values) {
	return values.map((v, i) => (v === null || !history.seconds[i] ? null : v / history.seconds[i]));
}

/* The greatest; a graph of less than one connect a second looks as little as it is. */
const peak = (values) => values.reduce((a, b) => Math.max(a, b), 1);
const last = (values) => (values.length ? values[values.length - 1] : null);

/* Pieces of [x, value] without a gap; x is in seconds, the newest sample at the right edge. */
function pieces(history, values) {
	const found = [];
	let ago = 0, open = null;
	for (let i = values.length - 1; i >= 0 && ago <= WINDOW_S; ago += history.seconds[i--]) {
		if (values[i] === null) {
			open = null;
			continue;
		}
		if (!open) found.push(open = []);
		open.push([WINDOW_S - ago, values[i]]);
	}
	return found;
}

function graph(history, values, label, kind, top) {
	const height = top || peak(values);
	const y = (v) => (height ? 40 - (v / height) * 38 : 40).toFixed(1);
	const parts = pieces(history, values).flatMap((piece) => {
		const line = piece.map(([x, v]) => `${x.toFixed(1)},${y(v)}`).join("L");
		const area = `M${piece[0][0].toFixed(1)},40L${line}L${piece[piece.length - 1][0].toFixed(1)},40Z`;
		return [svg("path", { class: "area", d: area }), svg("path", { class: "curve", d: `M${line}` })];
	});
	return svg("svg", { viewBox: `0 0 ${WINDOW_S} 40`, preserveAspectRatio: "none", role: "img", class: kind || "",
		"aria-label": `${label}, the last ten minutes: now ${number(last(values))}, at most ${number(Math.max(0, ...values))}` }, ...parts);
}

function graphCard(history, title, shown, values, kind) {
	return el("div", "card", el("h2", "", title), el("div", "number", shown),
		graph(history, values, title, kind),
		el("div", "axis", el("span", "", "10 min ago"), el("span", "", `at most ${number(Math.max(0, ...values))}`), el("span", "", "now")));
}

function showGraphs(status, history) {
	const of = (key) => total(history.backends.map((b) => b[key]));
	const opened = rates(history, of("opened"));
	const failed = of("failed");
	const failures = failed.reduce((a, b) => a + (b || 0), 0);
	const active = status.backends.reduce((a, b) => a + b.active, 0);
	fill("graphs",
		graphCard(history, "Connections", number(active), of("active")),
		graphCard(history, "Connects a second", number(last(opened)), opened),
		graphCard(history, "Failed connects, ten minutes", number(failures), failed, "fails"));
}

/* --- judgement -------------------------------------------------------------------------- */

/* What is wrong with backends, as [kind, text]. */
function backendProblems(s) {
	return s.backends.filter((b) => b.state !== "ready").map((b) =>
		[b.state === "dead" || b.state === "ejected" ? "bad" : "warn", `${b.address} is ${b.state}: ${b.why}`]);
}

/* And with all else. */
function otherProblems(s) {
	const found = [];
	const bad = (text) => found.push(["bad", text]);
	const warn = (text) => found.push(["warn", text]);
	if (s.effective === false && s.dataPath === "kernel")
		bad("Not every connect is balanced: the programs do not run, or other programs decide. Run kubelb-load again.");
	for (const l of s.listeners || []) if (!l.listens) bad(`${l.frontend} is not served: ${l.error}`);
	for (const c of s.connects) if (c.result === "elsewhere" || c.result === "untouched")
		bad(`Connects to ${c.frontend} do not end where KubeLB sends them` + (c.found ? `, but at ${c.found}.` : "."));
	if (!s.inHostNetns && s.dataPath === "kernel") bad("The data path belongs to another network namespace.");
	if (!s.agent.alive) bad("The agent's verdicts do not count: its last sign of life is too old.");
	judgeCertificates(s, bad, warn);
	if (["failing", "cache", "seeds"].includes(s.discovery.state))
		warn(`Discovery: ${discoveryText(s.discovery)}.`);
	if (s.lock && s.lock.processSeconds > LOCK_PATIENCE_S)
		warn(`${s.lock.name || "A process"} (PID ${s.lock.pid}) holds the lock: changes of the configuration wait.`);
	if (s.diverted.count) warn(`Other programs have sent connects elsewhere: ${number(s.diverted.count)}, the last one to ${s.diverted.lastTo}.`);
	return found;
}

function judgeCertificates(s, bad, warn) {
	const all = s.backends.map((b) => [`The certificate of ${b.address}`, b.certificateExpiresInSeconds]);
	all.push(["The client certificate of the probes", s.agent.certificateExpiresInSeconds]);
	for (const [what, left] of all) {
		if (left === null || left === undefined || days(left) >= CERTIFICATE_WARN_DAYS) continue;
		if (left < 0) bad(`${what} has expired.`);
		else warn(`${what} expires in ${count(days(left), "day")}.`);
	}
}

function headline(s) {
	const all = s.backends.filter((b) => b.state !== "removed");
	const ready = all.filter((b) => b.state === "ready").length;
	if (!all.length) return ["bad", "There is no backend"];
	if (!ready) return ["bad", all.length === 1 ? "The backend is not ready" : `None of ${all.length} backends is ready`];
	if (ready < all.length) return ["warn", `${ready} of ${all.length} backends ${ready === 1 ? "is" : "are"} ready`];
	return ["good", all.length === 1 ? "The backend is ready" : `All ${all.length} backends are ready`];
}

function showVerdict(s) {
	const [kind, text] = headline(s);
	const others = otherProblems(s);
	const list = [...others, ...backendProblems(s)].sort((a, b) => (a[0] > b[0]) - (a[0] < b[0]));
	/* A backend may be dead while others serve. */
	const worst = kind === "bad" || others.some(([k]) => k === "bad") ? "bad" : list.length ? "warn" : kind;
	const path = s.dataPath === "relay"
		? `The agent relays every connect: ${s.dataPathReason}.`
		: "The kernel sends each connect to a backend.";
	fill("verdict", el("div", `card ${worst}`, el("p", "headline", text), el("p", "soft", path),
		...(list.length ? [el("ul", "", ...list.map(([k, t]) => el("li", k, el("span", "", t))))] : [])));
	showIcon(worst);
	document.title = `KubeLB ${s.host || ""}: ${text.toLowerCase()}`;
}

const COLOURS = { good: "1a8a4a", warn: "d99a1c", bad: "d23b3b" };

function showIcon(kind) {
	const icon = document.querySelector("link[rel=icon]");
	const now = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'><circle cx='4' cy='4' r='4' fill='%23${COLOURS[kind]}'/></svg>`;
	if (icon.href !== now) icon.href = now;
}

/* --- tables ----------------------------------------------------------------------------- */

/* columns: [title, class]; rows: lists of cells. A row's cells have names where it is a card. */
function table(columns, rows) {
	const head = el("tr", "", ...columns.map(([title, kind]) => el("th", kind, title)));
	const body = rows.map((cells) => el("tr", "", ...cells.map((cell, i) => {
		const td = el("td", columns[i][1], cell);
		if (columns[i][0] && columns[i][2] !== "first") td.dataset.name = columns[i][0];
		return td;
	})));
	return el("table", "", el("thead", "", head), el("tbody", "", ...body));
}

const KINDS = { ready: "good", restored: "good", added: "plain", returned: "good", suspect: "warn", draining: "warn",
	ejected: "bad", dead: "bad", "connect-failed": "bad", "peer-lost": "bad", "closed-early": "bad", silent: "bad",
	unanswered: "warn", stalled: "warn", drained: "warn" };

const pill = (word) => el("span", `pill ${KINDS[word] || ""}`, word);

const withGraph = (text, drawn) => el("div", "with-graph", drawn, el("span", "", text));

function certificateCell(left) {
	if (left === null || left === undefined) return el("span", "soft", "–");
	const kind = left < 0 ? "bad" : days(left) < CERTIFICATE_WARN_DAYS ? "warn" : "";
	return el("span", kind, left < 0 ? "expired" : count(days(left), "day"));
}

function weightCell(b) {
	const note = b.drained ? "drained" : b.weightOverride !== null ? "by the operator" : "";
	return el("div", "", number(b.weight), ...(note ? [el("div", "under", note)] : []));
}

const failures = (b) => Object.values(b.failed).reduce((x, y) => x + y, 0);

const BACKEND_COLUMNS = [["Backend", "", "first"], ["State", ""], ["Weight", "right"], ["Connections", "right"],
	["Connects a second", "right"], ["Failed", "right"], ["RTT", "right"], ["Probed", "right"], ["Certificate", "right"]];

/* Its samples; opened: in a second. */
function samplesOf(history, address) {
	const h = history.backends.find((x) => x.address === address) || { active: [], opened: [] };
	return { active: h.active, opened: rates(history, h.opened) };
}

/* tops: the greatest of all backends, so that their graphs compare. */
function backendRow(b, history, tops) {
	const { active, opened } = samplesOf(history, b.address);
	const since = b.sinceSeconds === null ? "" : `, for ${duration(b.sinceSeconds)}`;
	return [
		el("div", "", el("div", "address", b.address), el("div", "under", b.why + since),
			...(b.preferred ? [el("div", "under", "this node's own, goes first")] : [])),
		pill(b.state),
		weightCell(b),
		withGraph(number(b.active), graph(history, active, `Connections to ${b.address}`, "", tops.active)),
		withGraph(number(last(opened)), graph(history, opened, `Connects a second to ${b.address}`, "", tops.opened)),
		el("span", failures(b) ? "" : "soft", number(failures(b))),
		duration(b.rttSeconds),
		ago(b.lastProbeSecondsAgo),
		certificateCell(b.certificateExpiresInSeconds),
	];
}

function showBackends(s, history) {
	const samples = s.backends.map((b) => samplesOf(history, b.address));
	const tops = { active: peak(samples.flatMap((x) => x.active)), opened: peak(samples.flatMap((x) => x.opened)) };
	fill("backends", el("div", "card", el("h2", "", "Backends"),
		table(BACKEND_COLUMNS, s.backends.map((b) => backendRow(b, history, tops)))));
}

/* Where connects to it end. */
function endsCell(s, address) {
	const listener = (s.listeners || []).find((l) => l.frontend === address);
	const tried = s.connects.find((c) => c.frontend === address);
	if (listener) return listener.listens ? el("span", "good", "relayed") : el("span", "bad", "not served");
	if (!tried) return el("span", "soft", "–");
	if (tried.result === "balanced") return el("span", "good", "balanced");
	return el("span", tried.result === "not_checked" ? "soft" : "bad", words(tried.result));
}

function showFrontends(s) {
	const columns = [["Frontend", "", "first"], ["Connects are", ""], ["Policy", ""], ["Scope", ""], ["Backends", "right"]];
	fill("frontends", el("div", "card", el("h2", "", "Frontends"), table(columns, s.frontends.map((f) => [
		el("span", "address", f.address), endsCell(s, f.address), f.policy, f.scope, number(f.backends.length)]))));
}

/* --- facts ------------------------------------------------------------------------------ */

function facts(title, rows, kind) {
	const list = rows.filter((r) => r).flatMap(([name, ...value]) => [el("dt", "", name), el("dd", "", ...value)]);
	return list.length ? [el("div", `card ${kind || ""}`, el("h2", "", title), el("dl", "", ...list))] : [];
}

function discoveryText(d) {
	const texts = { off: "off, the configuration's list", seeds: "the configuration's list is used, the cluster has not named others",
		cache: "the saved list is used, the cluster has not answered yet", current: "the cluster's list",
		failing: "the cluster cannot be asked, its last list is used" };
	return texts[d.state] || words(d.state);
}

function programsText(s) {
	const off = s.programs.filter((p) => p.effective === false).map((p) => p.name);
	if (!s.programs.length) return el("span", "bad", "none");
	return off.length ? el("span", "bad", `not effective: ${off.join(", ")}`) : `${s.programs.length} attached`;
}

const REASONS = { config: "by the configuration", kernel: "the kernel cannot", taken: "its mark or table is somebody else's",
	privilege: "the agent has no CAP_NET_ADMIN", local: "this node's own backend has the port", netns: "another network namespace",
	address: "an address is taken", alone: "there is no other backend", other: "see the agent's log" };

function partText(part) {
	const why = part.off ? ` (${REASONS[part.off] || words(part.off)})` : "";
	return el("span", part.on ? "" : "soft", (part.on ? "on" : part.off ? "off" : "starting") + why);
}

function relayFacts(s) {
	const r = s.relay;
	if (!r || s.dataPath === "relay") return [];
	return facts("Relay", [["rescue", partText(r.rescue)], ["detour", partText(r.detour)], ["connections", number(r.connections)],
		r.standsInFor.length ? ["stands in for", r.standsInFor.join(", ")] : null]);
}

/* The connects that nobody has balanced, and why. */
function leftAlone(s) {
	const names = { loopbackSource: "loopback source", noBackend: "no backend", otherNetns: "other namespace", ownListener: "own server" };
	const found = Object.entries(names).filter(([key]) => s.skipped[key]).map(([key, text]) => `${number(s.skipped[key])} (${text})`);
	return found.length ? ["left alone", found.join(", ")] : null;
}

function showFacts(s) {
	const off = s.features.filter((f) => !f.present);
	fill("facts",
		...facts("Data path", [["carried by", s.dataPath === "relay" ? "the agent" : "the kernel"],
			s.dataPath === "kernel" ? ["programs", programsText(s)] : null,
			["configuration", `number ${s.configSerial}`],
			s.local ? ["local backends", s.local] : null,
			leftAlone(s),
			s.otherPrograms && s.otherPrograms.length ? ["others' programs", s.otherPrograms.map((p) => p.name || `${p.programId}`).join(", ")] : null]),
		...facts("Agent", [["last sign of life", ago(s.agent.heartbeatSecondsAgo)], ["discovery", discoveryText(s.discovery)],
			s.discovery.heardSecondsAgo === null ? null : ["cluster heard", ago(s.discovery.heardSecondsAgo)],
			s.agent.certificateExpiresInSeconds === null ? null : ["client certificate", certificateCell(s.agent.certificateExpiresInSeconds)]]),
		...relayFacts(s),
		...facts("Features that are off", off.map((f) => [f.name, f.loss || f.detail]), "wide"));
}

/* --- events ----------------------------------------------------------------------------- */

function changeText(e) {
	if (e.event === "state") return (e.was ? `was ${e.was}: ` : "") + words(e.reason) + (e.httpStatus ? ` ${e.httpStatus}` : "");
	if (e.event === "reason") return `${words(e.reason)}, was ${words(e.wasReason)}`;
	if (e.event === "weight") return e.weight === null ? "the planned weight" : `weight ${e.weight}, by the operator`;
	return "";
}

function eventText(e) {
	if (!("latencySeconds" in e)) return changeText(e);
	return [e.reason ? words(e.reason) : "", `after ${duration(e.latencySeconds)}`, e.ejectedSeconds ? `for ${duration(e.ejectedSeconds)}` : ""]
		.filter((t) => t).join(", ");
}

function showEvents(history) {
	const all = [...history.events, ...history.changes].sort((a, b) => b.monotonicNs - a.monotonicNs);
	const rows = all.slice(0, 32).map((e) => [clock(new Date(e.time)), pill(e.event === "state" || e.event === "reason" ? e.state : e.event),
		e.backend, eventText(e)]);
	fill("events", el("div", "card", el("h2", "", "Events"), rows.length
		? table([["", ""], ["", ""], ["", "address"], ["", ""]], rows)
		: el("p", "soft", "Nothing has happened since the agent started.")));
}

/* --- asking ----------------------------------------------------------------------------- */

const shown = { status: null, history: { seconds: [], backends: [], events: [], changes: [] }, historyAt: 0, key: "", at: null };

async function ask(path) {
	const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
	if (answer.ok) return answer.json();
	throw Object.assign(new Error(await answer.text()), { answered: true });
}

/* What a change of makes the history out of date. */
function keyOf(status) {
	return JSON.stringify([status.events, status.backends.map((b) => [b.address, b.state, b.reason, b.drained, b.weight])]);
}

async function load() {
	const status = await ask("status.json");
	const key = keyOf(status);
	if (key !== shown.key || Date.now() - shown.historyAt >= HISTORY_MS) {
		shown.history = await ask("history.json");
		shown.historyAt = Date.now();
		shown.key = key;
	}
	shown.status = status;
	shown.at = new Date();
}

function show() {
	const { status, history } = shown;
	document.querySelector("main").classList.remove("stale");
	fill("host", status.host || "");
	fill("version", `version ${status.version}`);
	fill("updated", `updated ${clock(shown.at)}`);
	showVerdict(status);
	showGraphs(status, history);
	showBackends(status, history);
	showFrontends(status);
	showFacts(status);
	showEvents(history);
}

/* The agent does not answer, or has nothing to show. What was shown stays, in grey. */
function showFailure(e) {
	const text = e.answered ? "Nothing is balanced here" : "The agent does not answer";
	const since = shown.at ? ` What follows is of ${clock(shown.at)}.` : "";
	document.querySelector("main").classList.toggle("stale", Boolean(shown.at));
	fill("verdict", el("div", "card bad", el("p", "headline", text), el("p", "soft", (e.answered ? e.message.trim() + "." : "") + since)));
	fill("updated", `tried ${clock(new Date())}`);
	showIcon("bad");
	document.title = `KubeLB: ${text.toLowerCase()}`;
}

async function refresh() {
	try {
		await load();
		show();
	} catch (e) {
		showFailure(e);
	}
}

/* A page that nobody sees asks nothing; one that comes into sight asks at once. */
async function run() {
	for (;;) {
		if (document.hidden) await new Promise((go) => document.addEventListener("visibilitychange", go, { once: true }));
		else await refresh().then(() => new Promise((go) => setTimeout(go, REFRESH_MS)));
	}
}

run();
