"""Requests of one kind, which a server is asked by the side of others or alone."""

from dataclasses import dataclass

from benchmarks.labels import expected_label
from benchmarks.places import Place
from benchmarks.servers import Server
from benchmarks.workloads import Mix, Workload


@dataclass(frozen=True)
class Stream:
    """Requests for one model.

    Attributes:
        model: Its name, if the server has others besides.
        label: That of the first input.
    """

    model: str | None
    workload: Workload
    label: str

    def probe(self, server: Server) -> bytes:
        """Write the first request to a server."""
        return self.requests(server)[0]

    def requests(self, server: Server, deadline_ms: float = 0) -> list[bytes]:
        """Write the requests to a server; they are sent in turn."""
        content_type = self.workload.content_type
        return [
            server.request(inputs, content_type, deadline_ms, self.model) for inputs in self.workload.requests()
        ]


def streams_of(workload: Workload | Mix, place: Place) -> list[Stream]:
    """The one of a workload, or those of a mix."""
    alone = len(workload.parts) == 1
    return [
        Stream(None if alone else part.model, part, expected_label(where.folder, part.requests()[0]))
        for part, where in zip(workload.parts, place.each, strict=True)
    ]
