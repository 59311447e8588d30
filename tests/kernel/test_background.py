"""Tasks that cells leave running, as a front end sees them: output of the last cell, no status."""

from __future__ import annotations

TICK = """
import asyncio
async def tick(times):
    for k in range(times):
        print('tick', k)
        await asyncio.sleep(0.02)
    display('at the end')
"""


def _published_later(kernel, msg_id, wanted):
    """What comes for a request after its idle status, up to a message that is wanted."""
    found = []
    while not found or not wanted(found[-1]):
        message = kernel.client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") == msg_id:
            found.append(message)
    return found


def test_what_they_show_is_output_of_the_last_cell(kernel):
    kernel.run(TICK)
    kernel.run("task = asyncio.create_task(tick(20))")
    cell = kernel.execute("'last'")
    kernel.answer(cell)
    later = _published_later(kernel, cell, lambda m: m["msg_type"] == "display_data")
    assert later[-1]["content"]["data"]["text/plain"] == "'at the end'"
    assert {m["msg_type"] for m in later} == {"stream", "display_data"}  # no status: it is at rest
    assert later[-2]["content"]["text"].endswith("tick 19\n")


def test_the_stop_button_at_rest_cancels_them(kernel):
    kernel.run("import asyncio")
    cell = kernel.execute("task = asyncio.create_task(asyncio.sleep(600))")
    kernel.answer(cell)
    assert kernel.ask("interrupt_request", channel="control") == {"status": "ok"}
    later = _published_later(kernel, cell, lambda m: m["msg_type"] == "stream")
    text = "[wasi-kernel] a background task was cancelled: interrupted.\n"
    assert later[-1]["content"] == {"name": "stderr", "text": text}
    assert kernel.run("task.cancelled()").result == "True"


def test_a_silent_request_does_not_take_their_output(kernel):
    kernel.run(TICK)
    cell = kernel.execute("task = asyncio.create_task(tick(10))")
    kernel.answer(cell)
    kernel.answer(kernel.execute("None", silent=True))
    later = _published_later(kernel, cell, lambda m: m["msg_type"] == "display_data")
    assert later[-1]["content"]["data"]["text/plain"] == "'at the end'"


def test_shutdown_does_not_wait_for_them(start_kernel):
    kernel = start_kernel()
    kernel.run("import asyncio\nasync def busy():\n    while True: await asyncio.sleep(0)")
    kernel.run("task = asyncio.create_task(busy())")
    asked = kernel.send("shutdown_request", {"restart": False}, channel="control")
    assert kernel.reply(asked, "control")["content"]["status"] == "ok"
