# SPDX-License-Identifier: BSD-2-Clause
"""From a local proxy to KubeLB and back: the files that kubelb-load makes, and the
steps of docs/migrate.md as they stand there, with a real proxy under traffic."""

import os
import re
import select
import shutil
import signal
import subprocess
import time

import pytest

from helpers import Held, Traffic, dial, fails, ok, served_set, state_of
from system import wait_until
from world import ROOT

DATA = os.path.join(ROOT, "tests", "data", "import")
PAGE = os.path.join(ROOT, "docs", "migrate.md")
FILES = [("nginx", "kubespray-nginx.conf"), ("nginx", "rke-nginx.conf"),
         ("nginx", "handmade-nginx.conf"), ("haproxy", "kubespray-haproxy.cfg"),
         ("haproxy", "kubeadm-ha-haproxy.cfg"), ("haproxy", "listen-haproxy.cfg"),
         ("kubeconfig", "kubelet-kubeadm.conf"), ("kubeconfig", "admin-kubeconfig.yaml")]


def data(name):
    with open(os.path.join(DATA, name), encoding="utf-8") as f:
        return f.read()


# --- the files ---------------------------------------------------------------------


@pytest.mark.parametrize("kind, name", FILES, ids=[name for _kind, name in FILES])
def test_makes_the_expected_file(stage, kind, name):
    """And changes nothing, and needs no privileges."""
    program = stage.program("kubelb-load")
    copy = os.path.join(stage.dir, "bin", "kubelb-load-nobody")
    shutil.copyfile(program, copy)
    os.chmod(copy, 0o755)
    done = ok(stage.exec(["setpriv", "--reuid", "65534", "--clear-groups", copy,
                          f"--from-{kind}", "-"], stdin=data(name)))
    line, = done.stderr.splitlines()
    assert line.startswith("kubelb-load: next, once that is in /etc/kubelb/kubelb.yaml ")
    assert done.stdout == data(f"{name}.expected.yaml").replace(name, "standard input", 1)
    done = ok(stage.exec([program, f"--from-{kind}", name], cwd=DATA))
    assert done.stdout == data(f"{name}.expected.yaml")
    assert not os.path.exists(stage.pin)


@pytest.mark.parametrize("name", [name for _kind, name in FILES])
def test_dry_run_accepts_it(stage, name):
    # Some have addresses of documentation.
    done = ok(stage.load("--dry-run", "--force", strict=True,
                         config=os.path.join(DATA, f"{name}.expected.yaml")))
    assert done.stdout.startswith("would attach: ")
    backends = re.findall(r"^  \+ backend (\S+)", done.stdout, re.MULTILINE)
    written = re.findall(r"^  - (?:address: )?\"?([^\"#\s]+)\"? ",
                         data(f"{name}.expected.yaml").partition("\nbackends:\n")[2],
                         re.MULTILINE)
    assert sorted(backends) == sorted(written) and backends
    assert not os.path.exists(stage.pin)


@pytest.mark.parametrize("kind, text, line, words", [
    ("nginx", "stream {\n  server {\n", 2, ["never closed"]),
    ("haproxy", "listen k\n bind :6443\n server a cp1.example:6443\n", 3, ["is a name"]),
    ("kubeconfig", "clusters:\n- name: c\n  cluster: {server: 'https://127.0.0.1:6443'}\n", 3,
     ["a local proxy already", "--from-nginx"]),
])
def test_refuses_with_one_line(stage, kind, text, line, words, tmp_path):
    path = str(tmp_path / "file")
    stage.configure(path, text=text)
    done = stage.load(f"--from-{kind}", path, config=None)
    fails(done, 2, f"kubelb-load: {path}:{line}: ", *words)
    assert done.stdout == ""


def test_bad_command_lines(stage, tmp_path):
    fails(stage.load("--from-nginx", str(tmp_path / "none"), config=None), 2, "no such file",
          "--from-nginx FILE")
    fails(stage.load("--from-nginx", str(tmp_path), config=None), 2, "is a directory",
          "--from-nginx FILE")
    fails(stage.load("--from-nginx", "-", config=None, stdin="#" * (1 << 20) + "\n"), 2,
          "standard input: larger than 1048576 bytes", "--from-nginx FILE")
    for args in (["--detach"], ["--check"], ["-n"], ["-b", "10.0.0.1"], ["-c", stage.config],
                 ["--from-haproxy", "-"], ["-o", "json"]):
        fails(stage.load("--from-nginx", "-", *args, config=None), 2, "see --help")
    fails(stage.load("--from-nginx", config=None), 2)


def test_full_stdout_is_a_failure(stage):
    with open("/dev/full", "w", encoding="ascii") as full:
        fails(stage.load("--from-nginx", os.path.join(DATA, FILES[0][1]), config=None,
                         stdout=full), 1)


# --- as the proxies read it ------------------------------------------------------------


API = " server a 10.0.0.1:6443\n"
TIMES = "defaults\n mode tcp\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n"
# What HAProxy says of a file, and so what the importer has to say.
HAPROXY_TAKES = {
    "semicolon": " bind :6443;\n" + API,
    "range": " bind 127.0.0.1:6443-6445\n" + API,
    "offset": " bind :6443\n server a 10.0.0.1:+1000\n",
    "use-backend": " bind :6443\n use_backend b\nbackend b\n" + API,
    "default-in-listen": " bind :6443\n server x 10.0.0.9:443\n default_backend b\nbackend b\n" + API,
    "from": " bind :6443\n" + API + "defaults x from one\n retries 3\n",
    "junk-behind-port": " bind :6443\n server a 10.0.0.1:6443x\n",
}
HAPROXY_REFUSES = {
    "no-break-space": " bind :6443\n \u00a0server b 10.0.0.2:6443\n" + API,
    "keyword": " bind :6443\n sever b 10.0.0.2:6443\n" + API,
    "server-word": " bind :6443\n server a 10.0.0.1:6443 nonsense\n",
    "bind-word": " bind :6443 nonsense\n" + API,
    "bind-list": " bind 127.0.0.1:6443, 127.0.0.1:6444\n" + API,
    "no-port": " bind 127.0.0.1\n" + API,
    "cut-off": " bind :6443\n server a 10.0.0.1:6443",
    "same-server": " bind :6443\n" + API + API,
    "same-backend": " bind :6443\n default_backend b\nbackend b\n" + API + "backend b\n" + API,
    "missing": " bind :6443\n default_backend b\n",
    "from": " bind :6443\n" + API + "listen l from nowhere\n",
    "later-from": " bind :6443\n" + API + "listen l from x\n" + API + "defaults x\n mode tcp\n",
    "in-defaults": " bind :6443\n" + API + "defaults x\n server b 10.0.0.2:6443\n",
    "server-range": " bind :6443\n server a 10.0.0.1:6443-6445\n",
    "two-targets": " bind :6443\n default_backend b if TRUE\nbackend b\n" + API,
    "no-condition": " bind :6443\n use_backend b c\nbackend b\n" + API,
    "mode": " mode tpc\n bind :6443\n" + API,
    "section": " bind :6443\n" + API + "listen l :7443\n" + API,
    "server-list": " bind :6443\n server a 10.0.0.1:6443,10.0.0.2:6443\n",
}


def haproxy_file(lines):
    return TIMES.replace("defaults", "defaults one") + "listen k\n" + lines


@pytest.mark.parametrize("name", HAPROXY_TAKES)
def test_takes_what_haproxy_takes(stage, name, tmp_path):
    path = stage.configure(str(tmp_path / "haproxy.cfg"), text=haproxy_file(HAPROXY_TAKES[name]))
    ok(stage.exec(["haproxy", "-c", "-f", path]))
    ok(stage.load("--from-haproxy", path, config=None))


@pytest.mark.parametrize("name", HAPROXY_REFUSES)
def test_refuses_what_haproxy_refuses(stage, name, tmp_path):
    path = stage.configure(str(tmp_path / "haproxy.cfg"), text=haproxy_file(HAPROXY_REFUSES[name]))
    assert stage.exec(["haproxy", "-c", "-f", path]).returncode != 0
    fails(stage.load("--from-haproxy", path, config=None), 2, path)


BINDS = [":::6443", "[::]:6443", ":::6443 v6only", "*:6443", ":6443 v4v6", "ipv6@:6443", "ipv6@*:6443",
         "ipv4@:6443", "tcp6@::1:6443", "::1:6443", ":6443;", "*:6443,:::6443 v6only"]


def listening(stage, address):
    """Whether a connect to this loopback address is accepted."""
    done = stage.exec(["bash", "-c", f"exec 3<>/dev/tcp/{address}/6443"])
    return done.returncode == 0


@pytest.mark.parametrize("bind", BINDS)
def test_frontends_are_where_haproxy_listens(stage, bind, tmp_path):
    path = stage.configure(str(tmp_path / "haproxy.cfg"), text=haproxy_file(f" bind {bind}\n" + API))
    made = ok(stage.load("--from-haproxy", path, config=None)).stdout
    frontends = {a for a in ("127.0.0.1", "::1")
                 if f"  - {a}:6443 " in made or f'  - "[{a}]:6443" ' in made}
    proxy = stage.spawn(["haproxy", "-db", "-f", path], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: ok(stage.exec(["ss", "-Hltn", "sport = :6443"])).stdout.strip(),
                   "HAProxy to listen")
        assert frontends == {a for a in ("127.0.0.1", "::1") if listening(stage, a)}
    finally:
        proxy.kill()
        proxy.wait()


# Servers say who they are; the frontend is 127.0.0.1:6443.
WHO = """
import asyncio, sys

async def say(reader, writer):
    writer.write(("%s:%d" % writer.get_extra_info("sockname")).encode())
    writer.close()

async def main():
    for address in sys.argv[1:]:
        ip, port = address.split(":")
        await asyncio.start_server(say, ip, int(port))
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
ENDS = ["127.0.1.1:6443", "127.0.1.2:6443", "127.0.1.3:6443", "127.0.1.1:7443"]
BACKENDS = "backend a\n server a 127.0.1.1:6443\nbackend b\n server b 127.0.1.2:6443\n"
ROUTES = {
    "use_backend": "frontend k\n bind 127.0.0.1:6443\n use_backend a\n default_backend b\n",
    "never": "frontend k\n bind 127.0.0.1:6443\n use_backend a if FALSE\n default_backend b\n",
    "first": "frontend k\n bind 127.0.0.1:6443\n use_backend b if TRUE\n use_backend a\n",
    "last": "frontend k\n bind 127.0.0.1:6443\n default_backend b\n default_backend a\n",
    "listen": "listen k\n bind 127.0.0.1:6443\n server c 127.0.1.3:6443\n default_backend b\n",
    "own": "listen k\n bind 127.0.0.1:6443\n server c 127.0.1.3:6443\n use_backend a if FALSE\n",
    "inherited": "defaults d from one\n default_backend b\nfrontend k from d\n bind 127.0.0.1:6443\n",
    "disabled": "frontend x\n disabled\n bind 127.0.0.1:6443\n default_backend a\n"
                "frontend k\n bind 127.0.0.1:6443\n default_backend b\n",
    "no-port": "listen k\n bind 127.0.0.1:8132\n bind 127.0.0.1:6443\n server c 127.0.1.3\n",
    "offset": "listen k\n bind 127.0.0.1:6443\n server c 127.0.1.1:+1000\n",
}


@pytest.mark.parametrize("name", ROUTES)
def test_leads_where_haproxy_leads(stage, name, tmp_path):
    text = TIMES.replace("defaults", "defaults one") + ROUTES[name] + BACKENDS
    path = stage.configure(str(tmp_path / "haproxy.cfg"), text=text)
    made = ok(stage.load("--from-haproxy", path, config=None)).stdout
    servers = stage.spawn(["python3", "-c", WHO, *ENDS])
    proxy = stage.spawn(["haproxy", "-db", "-f", path], stderr=subprocess.DEVNULL)
    try:
        assert servers.stdout.readline() == "up\n"
        wait_until(lambda: listening(stage, "127.0.0.1"), "HAProxy to listen")
        who = ok(stage.exec(["bash", "-c", "cat </dev/tcp/127.0.0.1/6443"])).stdout
        assert re.findall(r"^  - (127\.0\.1\.\S+) ", made, re.MULTILINE) == [who]
        assert "  - 127.0.0.1:6443 " in made
    finally:
        for process in (proxy, servers):
            process.kill()
            process.wait()


STREAM = "stream {{ upstream k {{ {} }} server {{ {} }} }}"
ONE, LISTEN = "server 10.0.0.1:6443;", "listen 127.0.0.1:6443; proxy_pass k;"
NGINX_TAKES = {
    "case": (ONE, "listen 127.0.0.1:6443; proxy_pass K;"),
    "range": (ONE, "listen 127.0.0.1:6443-6445; proxy_pass k;"),
    "parameters": ("server 10.0.0.1:6443 max_fails=2 fail_timeout=3s max_conns=9 weight=2;",
                   "listen 127.0.0.1:6443 so_keepalive=on backlog=9; proxy_pass k;"),
    "methods": ("zone k 64k; random two least_conn; " + ONE, LISTEN),
}
NGINX_REFUSES = {
    "semicolon": ("server 10.0.0.1:6443\nserver 10.0.0.2:6443;", LISTEN),
    "method-semicolon": ("least_conn\n" + ONE, LISTEN),
    "listen-semicolon": (ONE, "listen 127.0.0.1:6443\nproxy_pass k;"),
    "no-break-space": (ONE + "\n\u00a0 server 10.0.0.2:6443;", LISTEN),
    "directive": (ONE + "sever 10.0.0.2:6443;", LISTEN),
    "upper-case": (ONE + "Server 10.0.0.2:6443;", LISTEN),
    "ip_hash": ("ip_hash;" + ONE, LISTEN),
    "location": (ONE, "listen 127.0.0.1:6443; location / { proxy_pass k; }"),
    "same-upstream": (ONE + "} upstream k { server 10.0.0.2:6443;", LISTEN),
    "same-listen": (ONE, "listen 127.0.0.1:6443; " + LISTEN),
    "two-targets": (ONE, LISTEN + "proxy_pass k;"),
    "no-target": (ONE, LISTEN + "} server { listen 127.0.0.1:7443;"),
    "no-listen": (ONE, "proxy_pass k;"),
    "parameter": ("server 10.0.0.1:6443 foo;", LISTEN),
    "listen-parameter": (ONE, "listen 127.0.0.1:6443 foo; proxy_pass k;"),
    "number": ("server 10.0.0.1:6443 max_fails=x;", LISTEN),
    "backups": ("server 10.0.0.1:6443 backup;", LISTEN),
    "backup-hash": ("hash x; server 10.0.0.2:6443 backup; " + ONE, LISTEN),
    "quote": ('server "10.0.0.1:6443"x;', LISTEN),
    "second-stream": (ONE, LISTEN + "} } stream { server { listen 7443; proxy_pass 10.0.0.1:6443;"),
}


def nginx_test(stage, path):
    return stage.exec(["nginx", "-t", "-p", os.path.dirname(path), "-e", "stderr", "-c", path, "-g",
                       f"load_module {Nginx.module}; pid {path}.pid;"])


@pytest.mark.parametrize("name", NGINX_TAKES)
def test_takes_what_nginx_takes(stage, name, tmp_path):
    path = stage.configure(str(tmp_path / "nginx.conf"),
                           text="events { }\n" + STREAM.format(*NGINX_TAKES[name]))
    ok(nginx_test(stage, path))
    ok(stage.load("--from-nginx", path, config=None))


@pytest.mark.parametrize("name", NGINX_REFUSES)
def test_refuses_what_nginx_refuses(stage, name, tmp_path):
    path = stage.configure(str(tmp_path / "nginx.conf"),
                           text="events { }\n" + STREAM.format(*NGINX_REFUSES[name]))
    assert nginx_test(stage, path).returncode != 0
    fails(stage.load("--from-nginx", path, config=None), 2, path)


def test_files_of_a_kubeconfig_are_relative_to_it(stage, tmp_path):
    """However the kubeconfig itself is named."""
    folder = tmp_path / "kube"
    folder.mkdir()
    stage.configure(str(folder / "config"), text="""
clusters:
- {name: c, cluster: {server: 'https://10.0.0.1:6443', certificate-authority: ../pki/ca.crt}}
""")
    for path, directory in ((str(folder / "config"), "/"), ("config", str(folder)),
                            ("kube/config", str(tmp_path))):
        done = ok(stage.load("--from-kubeconfig", path, config=None, cwd=directory))
        assert f"  ca: {tmp_path}/pki/ca.crt " in done.stdout


def test_a_list_of_kubeconfigs_is_not_one(stage, tmp_path):
    fails(stage.load("--from-kubeconfig", f"{tmp_path}/a:{tmp_path}/b", config=None), 2,
          "kubectl config view")


# --- the page ------------------------------------------------------------------------


NGINX_STEPS = ["generate", "dry-run", "load", "agent", "look", "look-at-proxy", "move",
               "wait-unused", "stop", "wait-stopped", "restore", "wait-listening", "detach"]


def steps(kind):
    """The commands of docs/migrate.md by the names in the comments before them."""
    with open(PAGE, encoding="utf-8") as f:
        page = f.read()
    pattern = rf"^ *<!-- run: {kind} (\S+) -->\n( *)```sh\n(.*?)^\2```$"
    return {name: re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
            for name, indent, body in re.findall(pattern, page, re.MULTILINE | re.DOTALL)}


def test_the_page_has_the_steps():
    assert list(steps("nginx")) == NGINX_STEPS
    assert set(steps("haproxy")) == {"generate", "stop", "restore"}


class Shell:
    """A root shell on the node. The page's /etc, /run and /var are directories of the
    world; the programs are the ones that were built, with the world's pins."""

    def __init__(self, stage, root):
        self.root = root
        self.asked = os.path.join(root, "systemctl")
        bin_dir = os.path.join(root, "bin")
        for path in ("bin", "run", "var/log", "etc/kubernetes/pki", "etc/kubernetes/manifests"):
            os.makedirs(os.path.join(root, path))
        shutil.copyfile(stage.ca, os.path.join(root, "etc/kubernetes/pki/ca.crt"))
        config = f"{root}/etc/kubelb/kubelb.yaml"
        self.script(f"{bin_dir}/kubelb-load", f"""
            case "$*" in --from-*) ;; --detach) set -- "$@" --pin {stage.pin} ;;
            *) set -- "$@" --pin {stage.pin} -c {config} ;; esac
            exec {stage.program("kubelb-load")} "$@" """)
        self.script(f"{bin_dir}/kubelb-agent", f"exec {stage.program('kubelb-agent')} "
                                               f"--pin {stage.pin} -c {config} \"$@\"")
        self.script(f"{bin_dir}/kubelbctl", f"exec {stage.program('kubelbctl')} "
                                            f"--pin {stage.pin} \"$@\"")
        self.script(f"{bin_dir}/systemctl", f'echo "$@" >>{self.asked}')
        self.process = stage.spawn(["bash", "--norc"], stderr=subprocess.STDOUT, env={
            **os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}"}, bufsize=0, text=False)

    @staticmethod
    def script(path, body):
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"#!/bin/sh\n{body}\n")
        os.chmod(path, 0o755)

    def path(self, name):
        return os.path.join(self.root, name.lstrip("/"))

    def run(self, script, timeout=30):
        """Its output; the shell goes on, with what the script has started."""
        moved = re.sub(r"(?<![\w./-])/(etc|run|var)/", rf"{self.root}/\1/", script)
        command = f"set -e\n{moved}\nset +e\necho; echo done-here\n"
        self.process.stdin.write(command.encode())
        output, deadline = b"", time.monotonic() + timeout
        while not output.endswith(b"\ndone-here\n"):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            assert ready, f"not done after {timeout} s: {script}{output.decode()}"
            data_read = os.read(self.process.stdout.fileno(), 65536)
            assert data_read, f"failed: {script}{output.decode()}"
            output += data_read
        return output.decode().removesuffix("\ndone-here\n")


class Proxy:
    """The kubelet's part in it: runs the proxy for as long as its manifest is there."""

    signal = None  # of a graceful end: STOPSIGNAL of the proxy's image
    manifest = None

    def __init__(self, stage, shell):
        self.stage = stage
        self.shell = shell
        self.process = None
        self.log = os.path.join(shell.root, "proxy.log")
        self.manifest = shell.path(f"/etc/kubernetes/manifests/{self.manifest}")
        with open(self.manifest, "w", encoding="utf-8") as f:
            f.write("kind: Pod\n")
        self.prepare()

    def write(self, path, text):
        path = self.shell.path(path)
        os.makedirs(os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)

    def listens(self):
        done = ok(self.stage.exec(["ss", "-Hltn", "sport = :6443"]))
        return bool(done.stdout.strip())

    def sync(self):
        """Starts or stops what the manifest asks for."""
        if os.path.exists(self.manifest) and not self.process:
            with open(self.log, "ab") as f:
                self.process = self.stage.spawn(self.argv(), stdin=subprocess.DEVNULL, stdout=f,
                                                stderr=f)
        elif self.process and not os.path.exists(self.manifest):
            self.process.send_signal(self.signal)
            assert self.process.wait(timeout=20) == 0
            self.process = None

    def wait_listening(self):
        def up():
            with open(self.log, encoding="utf-8", errors="replace") as f:
                assert self.process.poll() is None, f.read()
            return self.listens()

        wait_until(up, "the proxy to listen")


class Nginx(Proxy):
    kind = "nginx"
    manifest = "nginx-proxy.yml"
    signal = signal.SIGQUIT
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"

    def prepare(self):
        temporary = "".join(f"{name}_temp_path tmp-{name}; " for name in (
            "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        self.write("/etc/nginx/nginx.conf",
                   data("kubespray-nginx.conf").replace("http {", f"http {{ {temporary}"))

    def argv(self):
        directory = self.shell.path("/etc/nginx")
        return ["nginx", "-p", directory + "/", "-e", "stderr", "-c", f"{directory}/nginx.conf", "-g",
                f"load_module {self.module}; daemon off; user root; pid {directory}/pid;"]


class Haproxy(Proxy):
    kind = "haproxy"
    manifest = "haproxy.yml"
    signal = signal.SIGUSR1

    def prepare(self):
        # The world's apiservers have no /healthz.
        self.write("/etc/haproxy/haproxy.cfg",
                   data("kubespray-haproxy.cfg").replace("GET /healthz", "GET /readyz"))

    def argv(self):
        return ["haproxy", "-db", "-f", self.shell.path("/etc/haproxy/haproxy.cfg")]


def ways(stage, n=20):
    """How n new connects get there: a connect to a proxy on loopback has a loopback
    address of its own, one that leaves the node has the node's."""
    found = set()
    for _ in range(n):
        with dial(stage) as sock:
            found.add({"127.0.0.1": "proxy", stage.node_v4: "direct"}[sock.getsockname()[0]])
    return found


def generate(stage, shell, script):
    """The file is for the real /etc, as the page is."""
    output = shell.run(script)
    path = shell.path("/etc/kubelb/kubelb.yaml")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    assert text in output
    assert all(f"  - {b.endpoint} " in text for b in stage.backends)
    assert "  ca: /etc/kubernetes/pki/ca.crt\n" in text
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace(" /etc/", f" {shell.root}/etc/"))


def wait_ready(stage):
    wait_until(lambda: {state_of(stage, b) for b in stage.backends} == {"ready"},
               "every apiserver to be ready")


def to_kubelb(stage, shell, proxy, run):
    """Steps 1 to 7, with a kubelet that holds connections through the proxy."""
    with Held(stage, 20) as kubelet:
        generate(stage, shell, run["generate"])
        assert "would attach: 1 frontend, 3 backends" in shell.run(run["dry-run"])
        assert ways(stage) == {"proxy"}
        assert "attached: 1 frontend, 3 backends" in shell.run(run["load"])
        assert ways(stage) == {"direct"}
        shell.run(run["agent"])
        wait_ready(stage)
        assert shell.run(run["look"]).endswith("ok")
        assert shell.run(run["look-at-proxy"]) == "ok"
        assert served_set(stage) == {b.name for b in stage.backends}
        shell.run(run["move"])
        with open(shell.asked, encoding="utf-8") as f:
            assert f.read() == "restart kubelet\n"
        assert kubelet.close()["closed"] == 0, "a connection through the proxy was cut"
    shell.run(run["wait-unused"])
    shell.run(run["stop"])
    proxy.sync()
    assert shell.run(run["wait-stopped"]) == ""
    assert ways(stage) == {"direct"}


def back_to_the_proxy(stage, shell, proxy, run):
    with Held(stage, 20) as kubelet:
        shell.run(run["restore"])
        proxy.sync()
        assert shell.run(run["wait-listening"]).endswith("ok")
        assert ways(stage) == {"direct"}
        shell.run(run["detach"])
        assert not os.path.exists(stage.pin)
        assert ways(stage) == {"proxy"}
        assert kubelet.close()["closed"] == 0, "a direct connection was cut"


@pytest.mark.parametrize("proxy_class", [Nginx, Haproxy], ids=["nginx", "haproxy"])
def test_there_and_back(stage, proxy_class, tmp_path):
    """Twice, as the second time finds what the first has left."""
    run = {**steps("nginx"), **steps(proxy_class.kind)}
    shell = Shell(stage, str(tmp_path))
    proxy = proxy_class(stage, shell)
    proxy.sync()
    proxy.wait_listening()
    with Traffic(stage):
        for _ in range(2):
            if os.path.exists(shell.asked):
                os.unlink(shell.asked)
            to_kubelb(stage, shell, proxy, run)
            back_to_the_proxy(stage, shell, proxy, run)
