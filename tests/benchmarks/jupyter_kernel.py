"""A Jupyter kernel to compare with, driven over lines of JSON. Runs in a Python that has ipykernel and jupyter_client.

<- {"fresh": true, "code": "1 + 1"}      a new kernel, started and used once; or the one there is
-> {"ms": 531.2}
"""

import json
import sys
import time

from jupyter_client.manager import start_new_kernel


def main() -> None:
    manager = client = None
    for line in sys.stdin:
        order = json.loads(line)
        began = time.perf_counter()
        if order["fresh"] or client is None:
            if client:
                client.stop_channels()
                manager.shutdown_kernel(now=True)
                began = time.perf_counter()
            manager, client = start_new_kernel(kernel_name="python3")
        reply = client.execute_interactive(order["code"], timeout=60, output_hook=lambda message: None)
        taken_ms = (time.perf_counter() - began) * 1000
        assert reply["content"]["status"] == "ok", reply["content"]
        print(json.dumps({"ms": taken_ms}), flush=True)
    if client:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    main()
