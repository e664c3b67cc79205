"""What pods are told of batch jobs: settings in the open, secrets as files."""

from canarium_api import quantity
from canarium_api.cache import SecretKeyRef
from canarium_api.jobs_config import REDIS_FILE, WEBHOOK_FILE, JobsConfig
from canarium_api.v1alpha1 import JobsSpec
from canarium_operator.core.manifests import Manifest


def server_config(jobs: JobsSpec) -> JobsConfig:
    """Translate to the settings of a server. It signs no webhooks, so it is told of the secret and not given it."""
    return JobsConfig(
        redis_url_file=REDIS_FILE,
        webhook_secret_file=WEBHOOK_FILE if jobs.webhook_secret is not None else None,
        private_networks=",".join(jobs.private_networks),
        max_rows=jobs.max_rows,
        max_job_bytes=int(quantity.parse_quantity(jobs.max_job_size)),
        max_stored_bytes=int(quantity.parse_quantity(jobs.max_stored_size)),
        result_ttl=jobs.result_ttl,
        job_timeout=jobs.timeout,
    )


def redis_volume(jobs: JobsSpec) -> tuple[Manifest, Manifest]:
    """Make the volume with the URL of Redis, and its mount."""
    return _secret("jobs-redis", jobs.redis, REDIS_FILE)


def webhook_volume(secret: SecretKeyRef) -> tuple[Manifest, Manifest]:
    """Make the volume with the secret that signs webhooks, and its mount."""
    return _secret("jobs-webhook", secret, WEBHOOK_FILE)


def _secret(volume: str, secret: SecretKeyRef, file: str) -> tuple[Manifest, Manifest]:
    folder, _, name = file.rpartition("/")
    items = [{"key": secret.key, "path": name}]
    return (
        {"name": volume, "secret": {"secretName": secret.name, "items": items}},
        {"name": volume, "mountPath": folder, "readOnly": True},
    )
