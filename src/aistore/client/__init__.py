"""The Python client of a store.

>>> from aistore.client import Client
>>> bucket = Client().bucket("imagenet").create(exist_ok=True)  # doctest: +SKIP
>>> bucket.object("train/1.jpg").put("1.jpg")  # doctest: +SKIP
>>> bucket.object("train/1.jpg").get(etl="resize").read()  # doctest: +SKIP

Every error is one of `aistore.errors`.
"""

from .._conflict import warn_of_conflict
from ..model.objects import ObjectInfo
from .bucket import Bucket
from .client import Client
from .cluster import ClusterInfo, Node
from .endpoint import Endpoint
from .etl import Etl, EtlDetails
from .job import Job, JobInfo
from .legacy import Bck
from .listing import ListedObject
from .nodes import Nodes, NodeStatus
from .object import Object
from .pipeline import Pipeline
from .reader import ObjectReader
from .retry import RetryPolicy
from .storage import Storage

__all__ = [
    "Bck",
    "Bucket",
    "Client",
    "ClusterInfo",
    "Endpoint",
    "Etl",
    "EtlDetails",
    "Job",
    "JobInfo",
    "ListedObject",
    "Node",
    "NodeStatus",
    "Nodes",
    "Object",
    "ObjectInfo",
    "ObjectReader",
    "Pipeline",
    "RetryPolicy",
    "Storage",
]

warn_of_conflict()
