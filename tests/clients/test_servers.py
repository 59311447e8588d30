"""Servers run this kernel: REST, websockets, culling, many kernels, other transports.

Jupyter Server and Jupyter Kernel Gateway are installed beside the kernel. Enterprise Gateway needs
older packages than this kernel, and so has an environment of its own, from PyPI, with nothing of
ours but a kernelspec: that is how `docs/deployment.md` says to install it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

SERVERS = {
    "server": {"arguments": ["-m", "jupyter_server", "--ServerApp.allow_root=True"],
               "prefix": "ServerApp", "token": "IdentityProvider.token"},
    "gateway": {"arguments": ["-m", "kernel_gateway"], "prefix": "KernelGatewayApp",
                "token": "KernelGatewayApp.auth_token"},
}  # fmt: skip
LOOP = "print('begun', flush=True)\nwhile True: pass"


@pytest.fixture(scope="module")
def gateway_environment(tmp_path_factory):
    """Python of an environment that has Enterprise Gateway and a kernelspec of ours, "sandbox"."""
    folder = tmp_path_factory.mktemp("enterprise") / "env"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    install = [*uv, "pip", "install", "-q", "--python", python, "jupyter_enterprise_gateway>=3.3"]
    subprocess.run(install, check=True)
    spec = ["install", "--name", "sandbox", "--display-name", "Python (WASI)", "--prefix", folder]
    subprocess.run([sys.executable, "-m", "wasi_kernel", *spec], check=True)
    return str(python)


def _enterprise_gateway(request):
    inherited = ["PATH", "HOME", *(name for name in os.environ if name.startswith("WASI_KERNEL_"))]
    return {
        # kernels get nothing of its environment but what is named here
        "arguments": ["-m", "enterprise_gateway",
                      f"--EnterpriseGatewayApp.inherited_envs={inherited}"],
        "prefix": "EnterpriseGatewayApp", "token": "EnterpriseGatewayApp.auth_token",
        "python": request.getfixturevalue("gateway_environment"),
        "kernel": "sandbox", "env": {"KERNEL_USERNAME": "ana"},  # it starts none for root
    }  # fmt: skip


@pytest.fixture(scope="module", params=[*SERVERS, "enterprise"])
def api(request, serve):
    name = request.param
    about = dict(SERVERS[name] if name in SERVERS else _enterprise_gateway(request))
    return serve(*about.pop("arguments"), **about)


def test_a_kernel_is_offered_with_its_logo(api):
    async def run():
        found = (await api.ask("GET", "/api/kernelspecs"))["kernelspecs"][api.kernel]
        assert found["spec"]["display_name"] == "Python (WASI)"
        assert any("logo" in name for name in found["resources"])

    api.run(run())


def test_cells_run_and_errors_come_back(api):
    async def run():
        channels = await api.channels(await api.start())
        reply, text = await channels.run("import sys\nprint(sys.platform)\n6 * 7")
        assert (reply["status"], text) == ("ok", "wasi\n42")
        reply, _ = await channels.run("1 / 0")
        assert reply["ename"] == "ZeroDivisionError"
        reply, _ = await channels.run("import os; os._exit(1)")
        assert reply["ename"] == "GuestExited"
        assert (await channels.run("sys.platform"))[1] == "'wasi'"

    api.run(run())


def test_interrupt_and_restart(api):
    async def run():
        kernel = await api.start()
        channels = await api.channels(kernel)
        await channels.run("kept = 1")
        asked = await channels.execute(LOOP)
        await channels.until(asked, lambda m: "begun" in m["content"].get("text", ""))
        await api.ask("POST", f"/api/kernels/{kernel}/interrupt", {})
        assert (await channels.answer(asked))[0]["ename"] == "KeyboardInterrupt"
        assert (await channels.run("kept"))[1] == "1"
        await api.ask("POST", f"/api/kernels/{kernel}/restart", {})
        channels = await api.channels(kernel)
        assert (await channels.run("'kept' in dir()"))[1] == "False"

    api.run(run())


def test_a_second_connection_sees_what_the_first_left(api):
    async def run():
        kernel = await api.start()
        first = await api.channels(kernel)
        await first.run("kept = 'there'")
        await first.close()
        second = await api.channels(kernel)
        assert (await second.run("kept"))[1] == "'there'"

    api.run(run())


def test_ten_kernels_at_a_time(api):
    async def one(k):
        kernel = await api.start()
        channels = await api.channels(kernel)
        replies = [(await channels.run(f"{k} * {n}"))[1] for n in range(5)]
        await api.ask("DELETE", f"/api/kernels/{kernel}")
        return replies

    async def run():
        found = await asyncio.gather(*map(one, range(10)))
        assert found == [[str(k * n) for n in range(5)] for k in range(10)]

    api.run(run())


@pytest.mark.parametrize(
    ("option", "wanted"),
    [("transport=ipc", "ipc"), ("transport_encryption=required", "curve")],
    ids=["ipc", "curve"],
)
def test_jupyter_server_reaches_kernels_by(serve, option, wanted):
    about = SERVERS["server"]
    api = serve(*about["arguments"], f"--KernelManager.{option}", prefix=about["prefix"],
                token=about["token"])  # fmt: skip

    async def run():
        kernel = await api.start()
        file = json.loads((api.runtime / f"kernel-{kernel}.json").read_text())
        found = "curve" if "curve_publickey" in file else file["transport"]
        assert found == wanted
        channels = await api.channels(kernel)
        assert (await channels.run("6 * 7"))[1] == "42"
        asked = await channels.execute(LOOP)
        await channels.until(asked, lambda m: "begun" in m["content"].get("text", ""))
        await api.ask("POST", f"/api/kernels/{kernel}/interrupt", {})
        assert (await channels.answer(asked))[0]["ename"] == "KeyboardInterrupt"
        await api.ask("POST", f"/api/kernels/{kernel}/restart", {})
        channels = await api.channels(kernel)
        assert (await channels.run("'kept'"))[1] == "'kept'"
        await api.ask("DELETE", f"/api/kernels/{kernel}")

    api.run(run())


def test_what_is_idle_is_culled(serve):
    about = SERVERS["server"]
    culling = ("--MappingKernelManager.cull_idle_timeout=2",
               "--MappingKernelManager.cull_interval=1",
               "--MappingKernelManager.cull_connected=True")  # fmt: skip
    api = serve(*about["arguments"], *culling, prefix=about["prefix"], token=about["token"])

    async def run():
        kernel = await api.start()
        channels = await api.channels(kernel)
        await channels.run("1")
        for _ in range(60):
            if not await api.ask("GET", "/api/kernels"):
                return
            await asyncio.sleep(1)
        raise AssertionError(f"{kernel} still runs")

    api.run(run())
