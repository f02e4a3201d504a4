"""A subset of the Kubernetes API over HTTPS, in one process and in memory.

`async with serve(directory) as api:` starts an empty cluster: the kinds in kinds.py with get, list, watch,
create, update, patch and delete, errors in the real server's words, service accounts with tokens,
TokenReviews, RBAC, mutating admission webhooks over TLS, and the proxy to Services. tests/contract runs the
same tests against this and a real kube-apiserver.

What it leaves out, besides what the modules say of themselves: any kind not listed, most of strategic merge
patch, server-side apply, API versions and conversion, schemas (unknown fields are kept but for those of a
Pod's volumes and containers), quotas, PodSecurity, finalizers of Namespaces, the end of a token's time,
lists at a version that the client chooses, persistence. Built-in objects get only those defaults that
something here reads. There is no scheduler and no other controller: of those, only the parts that every
namespace needs (its default ServiceAccount, its kube-root-ca.crt) and the deletion of what an object owns
are done here, at once.
"""

from devcluster.api.server import Api, serve

__all__ = ["Api", "serve"]
