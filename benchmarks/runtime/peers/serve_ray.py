"""Ray Serve: one proxy, one replica for each process, no dashboard."""

import shutil
import signal
import tempfile
import threading

import numpy as np
import ray
from common import BATCH_MS, HOST, MAX_BATCH, PORT, PROCESSES, open_model
from ray import serve


@serve.deployment(
    num_replicas=PROCESSES, max_ongoing_requests=128, ray_actor_options={"num_cpus": 0}
)
class Infer:
    """Answers single rows, or batches when batching is on."""

    def __init__(self) -> None:
        self.run = open_model()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_MS / 1000)
    async def batched(self, rows):
        """Run a batch."""
        return list(self.run(np.stack(rows)))

    async def __call__(self, request):
        """Answer one request."""
        row = np.asarray((await request.json())["row"], np.float32)
        y = await self.batched(row) if BATCH_MS else self.run(row[None])[0]
        return {"y": y.tolist()}


if __name__ == "__main__":
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    # A path of its own, short enough for the sockets below it.
    folder = tempfile.mkdtemp(
        prefix="ray-"
    )  # short: the paths of its sockets must fit in 107 bytes
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=folder,
        _node_ip_address=HOST,
    )
    serve.start(http_options={"host": HOST, "port": PORT})
    serve.run(Infer.bind(), route_prefix="/predict")
    ended.wait()
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
