"""Model T for MLServer: the shortest custom model that runs an ONNX file."""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """Decodes the first input, runs the session and encodes all outputs."""

    async def load(self) -> bool:
        """Open the file with the same options as Canarium's backend."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        uri = self.settings.parameters.uri
        self._session = ort.InferenceSession(
            uri, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._names = [o.name for o in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request, or one batch of them."""
        tensor = payload.inputs[0]
        results = self._session.run(self._names, {tensor.name: NumpyCodec.decode_input(tensor)})
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[
                NumpyCodec.encode_output(n, a) for n, a in zip(self._names, results, strict=True)
            ],
        )
