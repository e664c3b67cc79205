"""KServe's Python server. It has no batching of its own (that is the agent's, in another container)."""

from common import PORT, PROCESSES, open_session
from kserve import InferOutput, InferResponse, Model, ModelServer


class OnnxModel(Model):
    """Runs the session on the first input."""

    def __init__(self) -> None:
        super().__init__("m")
        self.session = None

    def load(self) -> bool:
        """Open the model."""
        self.session = open_session()
        self.ready = True
        return True

    def predict(self, payload, headers=None, response_headers=None):
        """Answer one request."""
        if self.session is None:  # a worker process: the session does not travel
            self.load()
        (y,) = self.session.run(["y"], {"x": payload.inputs[0].as_numpy()})
        output = InferOutput(name="y", shape=list(y.shape), datatype="FP32")
        output.set_data_from_numpy(y, binary_data=False)
        return InferResponse(payload.id or "0", self.name, [output])


if __name__ == "__main__":
    model = OnnxModel()
    if PROCESSES == 1:
        model.load()
    else:
        model.ready = True
    server = ModelServer(
        http_port=PORT, workers=PROCESSES, enable_grpc=False, access_log_format=None
    )
    server.start([model])
