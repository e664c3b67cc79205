"""Who may ask, how often, over which transport.

    credentials ──► Guard ──► Client          clients: the two values
                    ├─ keys       API keys, hashed, from a file that is read again when it changes
                    ├─ jwt        tokens, checked by keys of the issuer (jwks fetches them)
                    ├─ limits     a bucket for each client; shared: the same through Redis
                    └─ paths      what is open to all
    tls: the transport's context, whose certificates are read again when they change

`Guard.admit` is on the way of each request and never waits; what waits is `admit_later`. `jwt`, `jwks`, `shared` and
`tls` are imported only where their feature is on.
"""

from canarium_runtime.security.clients import Client, Credentials
from canarium_runtime.security.guard import Guard

__all__ = ["Client", "Credentials", "Guard"]
