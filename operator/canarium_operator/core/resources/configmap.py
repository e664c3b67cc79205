"""The ConfigMap of a revision: the server's settings, and the template that lets the revision outlive its spec.

It is not marked immutable. A model with a digest may move to another URI without becoming another revision, and pods
that start from then on must fetch it from there; an immutable ConfigMap could not tell them. Pods that run already
keep what they have loaded.
"""

import json
from datetime import timedelta
from typing import Final

from canarium_api import quantity
from canarium_api.runtime_config import ANSWERS_PORT, RuntimeConfig
from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources import metadata, model_source
from canarium_operator.core.resources.cache import cache_settings
from canarium_operator.core.revision import Revision

DRAIN_DELAY: Final = timedelta(seconds=5)
"""How long a pod that is to stop goes on accepting: the endpoints, and then the gateway, learn of it only after the
pod does."""


def runtime_config(ref: ObjectRef, revision: Revision) -> RuntimeConfig:
    """Translate a revision to the settings of its servers."""
    model, serving = revision.model, revision.serving
    return RuntimeConfig(
        model_uri=model_source.locate(model.uri).uri,
        model_sha256=model.sha256,
        model_name=model.name or ref.name,
        model_version=revision.model_version,
        model_format=model.format,
        deployment=str(ref),
        revision=revision.name,
        max_batch_size=serving.max_batch_size,
        max_delay=serving.max_delay,
        queue_size=serving.queue_size,
        request_timeout=serving.request_timeout,
        max_body_bytes=int(quantity.parse_quantity(serving.max_body_size)),
        drain_timeout=serving.drain_timeout,
        drain_delay=DRAIN_DELAY,
        warmup_requests=model.warmup.requests,
        # Always: a shadow must not restart the pods of the revision that it is compared with.
        answers_port=ANSWERS_PORT,
        **cache_settings(serving.cache),
    )


def make_configmap(ref: ObjectRef, revision: Revision) -> Manifest:
    """Make the ConfigMap of a revision."""
    template = json.dumps(revision.to_template(), sort_keys=True, separators=(",", ":"))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            **metadata.revision_metadata(ref, revision),
            "annotations": {naming.TEMPLATE_ANNOTATION: template},
        },
        "data": runtime_config(ref, revision).to_env(),
    }
